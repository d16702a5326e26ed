package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	// windowInterval is how often the oplog is measured, windowCheck how often
	// the lag is compared with what was measured.
	windowInterval = time.Hour
	windowCheck    = time.Minute
	// windowTimeout bounds a measurement.
	windowTimeout = 30 * time.Second
	// shortWindow is the reach of an oplog below which an outage over a day off
	// loses history; lags is how many times the lag it must reach.
	shortWindow = 24 * time.Hour
	lags        = 3
	// fullOplog is the share of its size from which an oplog drops its oldest
	// entries.
	fullOplog = 0.95
	// youngOplog holds too little to say how it grows.
	youngOplog = 10 * time.Minute
)

// oplogWindow is how much of the past an oplog holds.
type oplogWindow struct {
	oldest, newest time.Time
	// bytes are held, of capacity at most; 0 where the server does not say.
	bytes, capacity int64
}

// held is the time between the oldest and the newest entry.
func (w oplogWindow) held() time.Duration { return max(w.newest.Sub(w.oldest), 0) }

// growth is how many bytes the oplog takes a second.
func (w oplogWindow) growth() float64 {
	if w.held() <= 0 {
		return 0
	}
	return float64(w.bytes) / w.held().Seconds()
}

// full reports whether the oplog drops entries, or may.
func (w oplogWindow) full() bool {
	return w.capacity <= 0 || w.bytes <= 0 || float64(w.bytes) >= fullOplog*float64(w.capacity)
}

// reach is how long an entry stays: what is held, or of an oplog that is not
// full yet, what it will hold at this growth; 0 of one that is too young to say.
func (w oplogWindow) reach() time.Duration {
	switch {
	case w.full():
		return w.held()
	case w.held() < youngOplog:
		return 0
	}
	return time.Duration(float64(w.held()) * float64(w.capacity) / float64(w.bytes))
}

// complaint says what is wrong with the window, or nothing. Open is how far before
// the present position the oldest open transaction began: a restart reads from
// there, so that entry must stay as well.
func (w oplogWindow) complaint(lag, open time.Duration) string {
	switch reach := w.reach(); {
	case reach == 0 && !w.full():
		return ""
	case open > 0 && reach >= lags*lag && reach < lags*(lag+open):
		return fmt.Sprintf("the source's oplog reaches back %s, less than %d times the %s from which a restart reads: a transaction is open at the source since %s: history may be lost soon: "+
			"hint: have it committed or aborted (`tributary status` names its session), or enlarge the oplog now (replSetResizeOplog)",
			reach.Round(time.Second), lags, (lag + open).Round(time.Second), open.Round(time.Second))
	case reach < lags*lag:
		return fmt.Sprintf("the source's oplog reaches back %s, less than %d times the lag of %s: history may be lost soon: "+
			"hint: enlarge the oplog now (replSetResizeOplog), or take load off", reach.Round(time.Second), lags, lag.Round(time.Second))
	case reach < shortWindow:
		return fmt.Sprintf("the source's oplog reaches back %s only: an outage of that length loses history: "+
			"hint: enlarge the oplog (replSetResizeOplog)", reach.Round(time.Second))
	}
	return ""
}

// measureOplog asks a member for its oplog's window.
func measureOplog(ctx context.Context, client *mongo.Client) (oplogWindow, error) {
	ctx, cancel := context.WithTimeout(ctx, windowTimeout)
	defer cancel()
	local := client.Database("local")
	var w oplogWindow
	for direction, at := range map[int]*time.Time{1: &w.oldest, -1: &w.newest} {
		var entry struct {
			TS bson.Timestamp `bson:"ts"`
		}
		find := options.FindOne().SetSort(bson.D{{Key: "$natural", Value: direction}}).SetProjection(bson.D{{Key: "ts", Value: 1}})
		if err := local.Collection("oplog.rs").FindOne(ctx, bson.D{}, find).Decode(&entry); err != nil {
			return w, fmt.Errorf("measure oplog: %w", err)
		}
		*at = time.Unix(int64(entry.TS.T), 0)
	}
	var stats struct {
		Size    float64 `bson:"size"`
		MaxSize float64 `bson:"maxSize"`
	}
	if err := local.RunCommand(ctx, bson.D{{Key: "collStats", Value: "oplog.rs"}}).Decode(&stats); err != nil {
		return w, fmt.Errorf("measure oplog: %w", err)
	}
	w.bytes, w.capacity = int64(stats.Size), int64(stats.MaxSize)
	return w, nil
}

// watchWindow measures the source's oplog now and every hour until ctx ends, and
// warns where it is short. Where it cannot be measured it says so and tries
// again: capture needs none of this.
func (s *Service) watchWindow(ctx context.Context, measure func(context.Context) (oplogWindow, error)) {
	check := time.NewTicker(windowCheck)
	defer check.Stop()
	var (
		next     time.Time
		window   oplogWindow
		known    bool
		said     string
		saidAt   time.Time
		measured = func(now time.Time) {
			next = now.Add(windowInterval)
			w, err := measure(ctx)
			if err != nil {
				if ctx.Err() == nil {
					s.cfg.Log.Info().Err(err).Msg("the reach of the source's oplog is not known")
				}
				return
			}
			window, known = w, true
			if w.reach() == 0 {
				next = now.Add(youngOplog)
			}
			s.reportWindow(w)
		}
	)
	for {
		now := time.Now()
		if !now.Before(next) {
			measured(now)
		}
		if known {
			complaint := window.complaint(s.reached())
			if complaint != "" && (said == "" || now.Sub(saidAt) >= windowInterval) {
				s.cfg.Log.Warn().Msg(complaint)
				saidAt = now
			}
			said = complaint
		}
		select {
		case <-check.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) reportWindow(w oplogWindow) {
	s.metrics.oplogWindow.Set(w.reach().Seconds())
	s.metrics.oplogGrowth.Set(w.growth())
	s.cfg.Report.Update(func(status *state.Status) {
		if status.Detail == nil {
			status.Detail = map[string]int64{}
		}
		status.Detail["oplog_window_seconds"] = int64(w.reach().Seconds())
		status.Detail["oplog_bytes_per_hour"] = int64(w.growth() * time.Hour.Seconds())
	})
	s.cfg.Log.Info().Stringer(logfield.OplogWindow, w.reach().Round(time.Second)).Stringer(logfield.OplogHeld, w.held()).
		Float64(logfield.OplogGrowth, w.growth()).Msg("measured the source's oplog")
}

// reached returns the last reported lag, and how far before the position that it
// belongs to the oldest open transaction began; 0 where there is none.
func (s *Service) reached() (lag, open time.Duration) {
	status := s.cfg.Report.Status()
	seconds := func(n float64) time.Duration { return time.Duration(max(n, 0) * float64(time.Second)) }
	if status.Open != nil {
		open = seconds(status.Open.AgeSeconds)
	}
	return seconds(status.LagSeconds), open
}
