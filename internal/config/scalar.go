package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxReferenceBytes bounds a file that file:PATH names.
const maxReferenceBytes = 64 * kib

// references resolves ${NAME} and file:PATH.
type references struct {
	env func(string) (string, bool)
	dir string
}

// resolve returns the value of a scalar: "file:PATH" as a whole stands for the
// file's content without the line breaks at its end, ${NAME} anywhere for an
// environment variable, $$ for a dollar sign. Its errors name the reference,
// never a value.
func (r references) resolve(raw string) (string, error) {
	if path, ok := strings.CutPrefix(raw, "file:"); ok {
		return r.file(path)
	}
	if !strings.Contains(raw, "$") {
		return raw, nil
	}
	var b strings.Builder
	for rest := raw; ; {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			rest = after[1:]
		case strings.HasPrefix(after, "{"):
			name, tail, closed := strings.Cut(after[1:], "}")
			if !closed || name == "" {
				return "", errors.New("a ${ is not closed or empty: hint: write ${NAME}, or $$ for a dollar sign")
			}
			value, ok := r.env(name)
			if !ok {
				return "", fmt.Errorf("environment variable %s is not set: hint: set it, or write $$ for a dollar sign", name)
			}
			b.WriteString(value)
			rest = tail
		default:
			b.WriteByte('$')
			rest = after
		}
	}
}

func (r references) file(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read referenced file: %w", err)
	}
	if info.IsDir() || info.Size() > maxReferenceBytes {
		return "", fmt.Errorf("read referenced file %s: want a file of at most %d bytes", path, maxReferenceBytes)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read referenced file: %w", err)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}

// parseDuration is time.ParseDuration with days.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil || n > math.MaxInt64/int64(24*time.Hour) {
			return 0, fmt.Errorf("parse days %q", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(text)
}

// parseBytes reads a number with an optional unit.
func parseBytes(text string) (Bytes, error) {
	digits := strings.TrimRightFunc(text, func(r rune) bool { return unicode.IsLetter(r) || r == ' ' })
	factors := map[string]int64{
		"": 1, "b": 1, "kib": kib, "mib": mib, "gib": gib, "kb": 1000, "mb": 1000 * 1000, "gb": 1000 * 1000 * 1000,
	}
	factor, ok := factors[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("parse size %q", text)
	}
	return Bytes(n * factor), nil
}
