package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metric asks the member for a metric and returns the sum over its labels; ok is
// false if it has none of that name.
func (m *Member) Metric(ctx context.Context, name string) (sum float64, ok bool, err error) {
	all, err := m.Metrics(ctx)
	if err != nil {
		return 0, false, err
	}
	sum, ok = all[name]
	return sum, ok, nil
}

// Metrics asks the member for its metrics and returns each one's sum over its
// labels. A histogram appears as its parts, <name>_bucket, <name>_sum and
// <name>_count.
func (m *Member) Metrics(ctx context.Context) (sums map[string]float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Address+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its metrics: %w", m.Name, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its metrics: %w", m.Name, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	sums = map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metrics of %s: %w", m.Name, err)
		}
		name, _, _ := strings.Cut(line[:end], "{")
		sums[name] += value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", m.Name, err)
	}
	return sums, nil
}

// Joined reports whether the member has become part of its consumer group, or
// has nothing left to do there.
func (m *Member) Joined(ctx context.Context) bool {
	if !m.Running() {
		return true
	}
	name := map[string]string{
		"capture": "tributary_capture_active", "snapshot": "tributary_snapshot_owned_partitions",
	}[m.service]
	if name == "" {
		name = "tributary_apply_partitions"
	}
	value, _, err := m.Metric(ctx, name)
	return err == nil && value > 0
}
