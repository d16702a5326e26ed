package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

const (
	// codeChangeStreamFatal is the server's answer to a token whose event it
	// does not hold, codeHistoryLost the one to a token or a time before its
	// oplog begins.
	codeChangeStreamFatal = 280
	codeHistoryLost       = 286
)

// maxChange bounds a split event: a document, the paths of an update of it, and
// what goes with them.
const maxChange = 48 << 20

// shardedPatience is stallPatience for a sharded cluster, whose stream comes as
// far as the shard that writes least often: a no-op every ten seconds.
const shardedPatience = 4 * stallPatience

// streamSource follows a deployment by a change stream over all of it.
type streamSource struct {
	cfg    *Config
	client *mongo.Client
	// known is the catalogue as the pipeline was told of it.
	known []state.CatalogItem

	// What describe found.
	sharded bool
	offered streamOptions
	dots    event.DotRule
	// said is what was last logged about it.
	said string
	// begun is the catalogue at the pipeline's start, which the first tail is to
	// write down.
	begun []state.CatalogItem
}

func (s *streamSource) describe(ctx context.Context) (event.Source, error) {
	d, err := mongodb.Describe(ctx, s.client)
	if err == nil {
		err = d.CheckStream()
	}
	if err == nil {
		s.offered, err = probeStreams(ctx, s.client)
	}
	if err != nil {
		return event.Source{}, &sourceError{err}
	}
	s.sharded, s.dots = d.Sharded, event.DotsUncertain
	if !d.AtLeast(4, 7) || s.offered.expanded && d.AtLeast(6, 1) {
		s.dots = event.DotsSeparate
	}
	s.say(d.Version)
	return event.Source{Deployment: d.ID, Mode: ModeChangeStream, ServerVersion: d.Version}, nil
}

// say logs what the source's change streams do not tell, once.
func (s *streamSource) say(version string) {
	now := version + " " + s.offered.String()
	if s.said == now {
		return
	}
	s.said = now
	if s.offered.expanded {
		s.cfg.Log.Info().Str(logfield.ServerVersion, version).Stringer(logfield.Offered, s.offered).Msg("source's change streams report every event")
		return
	}
	s.cfg.Log.Warn().Str(logfield.ServerVersion, version).Stringer(logfield.Offered, s.offered).Stringer(logfield.Wait, s.cfg.CatalogInterval).
		Msg("source's change streams report no create, createIndexes, dropIndexes and collMod, and no views (before MongoDB 6.0): the catalogue is compared at this interval")
}

func (s *streamSource) decoder(source event.Source, selected func(db, coll string) bool) decoder {
	return &changeDecoder{
		Decoder:  changestream.Decoder{Source: source, Select: selected, Dots: s.dots},
		pipeline: s.cfg.Pipeline,
	}
}

func (s *streamSource) start(ctx context.Context) (state.CapturePosition, error) {
	t, err := beginning(ctx, s.client, s.cfg.Start)
	if err != nil {
		return state.CapturePosition{}, err
	}
	if !s.cfg.Start.IsZero() && !s.offered.expanded {
		s.cfg.Log.Warn().Stringer(logfield.Position, event.Position{Time: t}).
			Msg("indexes and options that changed between the start and now are not told by these change streams: " +
				"hint: compare with `tributary verify`, and use source.mode oplog where it can be read")
	}
	// What was created between t and the list is loaded, since the load lists
	// the collections later.
	entries, err := mongodb.ListCollections(ctx, s.client, s.cfg.Select.Match)
	if err != nil {
		return state.CapturePosition{}, &sourceError{err}
	}
	position := event.Position{Time: t}
	at := state.CapturePosition{ReadFrom: position, PublishedThrough: position}
	s.begun = nil
	for i := range entries {
		if !entries[i].UUID.IsZero() && (orderedAsWhole(entries[i].Options) || uniqueRules(s.cfg.EnforcesUnique).orders(&entries[i])) {
			at.ByNamespace = append(at.ByNamespace, entries[i].UUID)
		}
		s.begun = append(s.begun, itemOf(&entries[i]))
	}
	return at, nil
}

// open resumes behind the token or, before the first one, behind the start time.
// The server looks for the token's event itself.
func (s *streamSource) open(ctx context.Context, at state.CapturePosition) (tail, event.Position, error) {
	from := at.PublishedThrough
	reached := from.Time
	opts := s.offered.options()
	if len(at.ResumeToken) > 0 {
		token, err := changestream.ParseToken(at.ResumeToken)
		if err != nil {
			return nil, from, &finalError{fmt.Errorf("resume capture at position=%s: %w", from, err)}
		}
		reached = token.Time
		opts.SetStartAfter(bson.Raw(at.ResumeToken))
	} else {
		opts.SetStartAtOperationTime(&from.Time)
	}
	// A stream may begin in the future, where a deployment that was restored
	// from a backup would be silent until it has come so far with another
	// history.
	now, err := mongodb.MajorityTime(ctx, s.client)
	if err != nil {
		return nil, from, &sourceError{err}
	}
	if event.CompareTimes(now, reached) < 0 {
		return nil, from, &transientError{errors.New("open change stream: the source has not come to the position: hint: if it was restored from a backup, start a new pipeline name with a full load")}
	}
	stream, err := s.client.Watch(ctx, s.offered.pipeline(), opts)
	if err != nil {
		return nil, from, streamFailure(from, "open change stream", err)
	}
	patience := stallPatience
	if s.sharded {
		patience = shardedPatience
	}
	t := &streamTail{
		source: s, stream: stream, last: from, complete: from.Time, assembler: changestream.Assembler{Limit: maxChange},
		stall: stall{
			majority: func(ctx context.Context) (bson.Timestamp, error) { return mongodb.MajorityTime(ctx, s.client) }, patience: patience,
		},
	}
	if len(at.ResumeToken) == 0 {
		t.skip = from.Time
	}
	if !at.ReadFrom.IsZero() {
		t.complete = at.ReadFrom.Time
	}
	t.stall.moved(reached, time.Now())
	if !s.offered.expanded {
		t.catalog = newCatalog(s.cfg, s.client, s.known)
		t.catalog.begun, s.begun = s.begun, nil
	}
	return t, from, nil
}

// streamFailure tells lost history from other failures of a change stream.
func streamFailure(at event.Position, step string, err error) error {
	var command mongo.ServerError
	if errors.As(err, &command) && (command.HasErrorCode(codeHistoryLost) || command.HasErrorCode(codeChangeStreamFatal)) {
		return historyLost(at, "the source answers: "+err.Error())
	}
	return &sourceError{fmt.Errorf("%s: %w", step, mongodb.Explain(err, "the roles readAnyDatabase and clusterMonitor"))}
}

// before returns the time before t, after the one behind it.
func before(t bson.Timestamp) bson.Timestamp {
	if t.I == 0 {
		return bson.Timestamp{T: t.T - 1, I: ^uint32(0)}
	}
	return bson.Timestamp{T: t.T, I: t.I - 1}
}
