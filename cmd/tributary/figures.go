package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tributarydb/tributary/internal/state"
)

// loadLabel names what a status's load is of.
func loadLabel(s state.Status) string {
	if s.Destination == "" {
		return "source"
	}
	return s.Destination
}

// percentText has one digit behind the point, and never rounds up to all.
func percentText(p float64) string {
	return strconv.FormatFloat(float64(int64(p*10))/10, 'f', 1, 64) + "%"
}

// byteText is a number of bytes in a unit that leaves few digits.
func byteText(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

// shareText is "3/10"; the total is left out where it says nothing.
func shareText(s state.Share) string {
	if s.Total <= 0 {
		return strconv.FormatInt(s.Done, 10)
	}
	return fmt.Sprintf("%d/%d", s.Done, s.Total)
}

func byteShareText(s state.Share) string {
	if s.Total <= 0 {
		return byteText(float64(s.Done))
	}
	return byteText(float64(s.Done)) + "/" + byteText(float64(s.Total))
}

// rateText is empty where nothing comes.
func rateText(r state.Rate) string {
	if r.Documents <= 0 && r.Bytes <= 0 {
		return ""
	}
	return fmt.Sprintf("%.0f docs/s %s/s", r.Documents, byteText(r.Bytes))
}

// leftText is empty where the time that is left is not known.
func leftText(eta *float64) string {
	if eta == nil {
		return ""
	}
	const longest = 1000 * 24 * time.Hour
	left := time.Duration(min(*eta, longest.Seconds()) * float64(time.Second)).Round(time.Second)
	if days := left / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%s", days, (left % (24 * time.Hour)).Round(time.Minute).String())
	}
	return left.String()
}

// printable is a name without what could move a terminal's cursor.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}
