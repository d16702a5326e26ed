package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// silentAfter is when a service that says nothing is shown as silent: a few
// times the interval at which it should.
const silentAfter = 4 * state.DefaultReportInterval

// pipelineStatus is what `tributary status -json` prints.
type pipelineStatus struct {
	Pipeline string          `json:"pipeline"`
	Source   *state.Identity `json:"source,omitempty"`
	// Services are by service, destination and instance.
	Services []serviceStatus `json:"services"`
	Run      *loadStatus     `json:"run,omitempty"`
	// Waiting counts, by destination, the records that Kafka holds and the
	// group has not reported as consumed.
	Waiting map[string]int64 `json:"waiting_records"`
	// Limits are by name: source, load/NAME, changes/NAME.
	Limits map[string]limitStatus `json:"limits"`
	// Requests are whole documents and collections that capture was asked for
	// and has not published yet; Refused are the newest that it cannot.
	Requests []requestStatus `json:"pending_requests,omitempty"`
	Refused  []state.Answer  `json:"refused_requests,omitempty"`
	names    []string
}

type serviceStatus struct {
	state.Status
	// Silent says that nothing was heard for too long: it has ended without a
	// last word, or cannot reach Kafka.
	Silent bool `json:"silent"`
}

// loadStatus is the latest run of snapshot.
type loadStatus struct {
	Run     string    `json:"run"`
	State   string    `json:"state"`
	Cause   string    `json:"cause,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Chunks  int32     `json:"chunks"`
}

// runStatus is `tributary status`: it fails when a service has failed.
func runStatus(ctx context.Context, a *app, args []string) error {
	var (
		path   string
		asJSON bool
	)
	fs := a.flags("status")
	fs.StringVar(&path, "config", "", "`FILE` that describes the pipeline (required)")
	fs.BoolVar(&asJSON, "json", false, "print the status as JSON")
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	cfg, err := a.load(path)
	if err != nil {
		return err
	}
	status, err := readStatus(ctx, cfg)
	if err != nil {
		return unknownError{err}
	}
	if asJSON {
		err = a.printJSON(status)
	} else {
		err = a.print(status.text(time.Now()))
	}
	if err != nil {
		return err
	}
	return failure(status.Services)
}

// failure returns an error that names the first service that has failed.
func failure(services []serviceStatus) error {
	for _, s := range services {
		if s.State == state.StateFailed || s.State == state.StateHistoryLost {
			return fmt.Errorf("show status: %s of instance %s is %s: %s", s.Service, s.Instance, s.State, s.Cause)
		}
	}
	return nil
}

// readStatus asks Kafka alone: that is where services say how they are.
func readStatus(ctx context.Context, cfg *config.Config) (*pipelineStatus, error) {
	brokers, err := kafkaConfig(cfg, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	topics := route.TopicsOf(cfg.Name)
	view, err := precheck.View(ctx, brokers, topics.State)
	if err != nil {
		return nil, fmt.Errorf("show status: %w", err)
	}
	if view == nil {
		return nil, fmt.Errorf("show status: pipeline %s has never run: topic %s does not exist: hint: start it with `tributary run`", cfg.Name, topics.State)
	}
	status := &pipelineStatus{
		Pipeline: cfg.Name, Services: []serviceStatus{}, Limits: limitsInForce(cfg, view), names: throttleNames(cfg),
		Requests: pendingRequests(view), Refused: view.Answers(),
	}
	if id, ok := view.Identity(); ok {
		status.Source = &id
	}
	if m, ok := view.LatestRun(); ok {
		status.Run = &loadStatus{Run: m.Run, State: m.State, Cause: m.Cause, Started: m.Started, Ended: m.Ended, Chunks: m.Chunks}
	}
	now := time.Now()
	for _, s := range view.Statuses() {
		status.Services = append(status.Services, serviceStatus{Status: s, Silent: silent(s, now)})
	}
	slices.SortFunc(status.Services, func(a, b serviceStatus) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Instance, b.Instance))
	})
	status.Waiting, err = waiting(ctx, brokers, cfg)
	return status, err
}

// silent reports whether a service should have said something since.
func silent(s state.Status, now time.Time) bool {
	return !hasEnded(s) && now.Sub(s.Updated) > silentAfter
}

// hasEnded reports whether a service has said its last word.
func hasEnded(s state.Status) bool {
	return s.State == state.StateFinished || s.State == state.StateFailed || s.State == state.StateHistoryLost
}

// waiting counts, by destination, the records between the offsets that its
// group mirrors to Kafka and the ends of the topics. A group that has none yet
// is left out.
func waiting(ctx context.Context, brokers kafka.Config, cfg *config.Config) (map[string]int64, error) {
	client, err := kafka.NewClient(brokers)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	counts := map[string]int64{}
	for _, d := range cfg.Destinations {
		group := route.ApplyGroup(cfg.Name, d.Name, "")
		committed, err := admin.FetchOffsets(ctx, group)
		if errors.Is(err, kerr.GroupIDNotFound) || err == nil && len(committed) == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("show status: read offsets of group %s: %w", group, err)
		}
		ends, err := admin.ListCommittedOffsets(ctx, slices.Collect(maps.Keys(committed))...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("show status: read ends of topics: %w", err)
		}
		var records int64
		committed.Each(func(o kadm.OffsetResponse) {
			if end, ok := ends.Lookup(o.Topic, o.Partition); ok && o.At >= 0 {
				records += max(end.Offset-o.At, 0)
			}
		})
		counts[d.Name] = records
	}
	return counts, nil
}

// text is a table for people.
func (s *pipelineStatus) text(now time.Time) string {
	var b strings.Builder
	source := "not decided yet"
	if s.Source != nil {
		source = fmt.Sprintf("%s (%s)", s.Source.Deployment, s.Source.Mode)
	}
	fmt.Fprintf(&b, "pipeline %s   source %s\n", s.Pipeline, source)
	if s.Run != nil {
		fmt.Fprintf(&b, "full load %s: %s, %d chunks%s\n", s.Run.Run, s.Run.State, s.Run.Chunks, prefixed(": ", s.Run.Cause))
	}
	b.WriteString("\n")
	rows := [][]string{{"SERVICE", "DESTINATION", "INSTANCE", "STATE", "FOR", "PHASE", "LAG", "WAITING", "DETAIL"}}
	for _, v := range s.Services {
		rows = append(rows, []string{
			v.Service, dash(v.Destination), v.Instance, v.state(now), ago(now, v.Since), dash(v.Phase), lag(v.LagSeconds),
			s.waitingOf(v.Status), dash(v.detail()),
		})
	}
	writeTable(&b, rows)
	if len(s.Services) == 0 {
		b.WriteString("no service has reported yet\n")
	}
	s.writeLoad(&b)
	s.writeIndexes(&b)
	s.writeOpen(&b)
	s.writeRequests(&b, now)
	s.writeLimits(&b)
	for _, v := range s.Services {
		if v.Cause != "" {
			fmt.Fprintf(&b, "%s %s: %s%s\n", v.Service, v.Instance, v.retrying(), v.Cause)
		}
	}
	return b.String()
}

// writeTable aligns columns; the last one is as long as it is.
func writeTable(b *strings.Builder, rows [][]string) {
	var widths []int
	for _, row := range rows {
		widths = append(widths, make([]int, max(len(row)-len(widths), 0))...)
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			fmt.Fprintf(b, "%-*s   ", widths[i], cell)
		}
		b.WriteString(row[len(row)-1] + "\n")
	}
}

func (s *pipelineStatus) waitingOf(v state.Status) string {
	if n, ok := s.Waiting[v.Destination]; ok && v.Service == "apply" {
		return fmt.Sprint(n)
	}
	return "-"
}

func (v serviceStatus) state(now time.Time) string {
	if v.Silent {
		return fmt.Sprintf("silent for %s (was %s)", ago(now, v.Updated), v.State)
	}
	return v.State
}

// retrying says since when a service has been trying again and when it gives up.
func (v serviceStatus) retrying() string {
	if v.State != state.StateRetrying || v.Until.IsZero() {
		return ""
	}
	return fmt.Sprintf("retrying since %s, gives up at %s: ", v.Since.UTC().Format(time.RFC3339), v.Until.UTC().Format(time.RFC3339))
}

// detail lists the counters by name.
func (v serviceStatus) detail() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(v.Detail)) {
		list = append(list, fmt.Sprintf("%s=%d", name, v.Detail[name]))
	}
	if !v.Begin.IsZero() {
		list = append(list, fmt.Sprintf("begun_behind=%d.%d", v.Begin.T, v.Begin.I))
	}
	return strings.Join(list, " ")
}

func lag(seconds float64) string {
	if seconds < 0 {
		return "-"
	}
	return (time.Duration(seconds*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
}

func ago(now, then time.Time) string {
	return max(now.Sub(then), 0).Round(time.Second).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
