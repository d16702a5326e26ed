package capture

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// recaller is a source that needs to know what the pipeline remembers. recall is
// called before every describe but the first.
type recaller interface {
	recall(ctx context.Context, view *state.View) error
}

// deployment is the source behind a connection, in the mode that the pipeline
// was begun in. It is used from one goroutine.
type deployment struct {
	cfg     *Config
	client  *mongo.Client
	metrics *metrics
	mode    string
	// entrySource is the one of mode; nil as long as that is not decided.
	entrySource
}

// describe decides about the mode if the pipeline has not yet.
func (d *deployment) describe(ctx context.Context) (event.Source, error) {
	if d.entrySource == nil {
		mode, err := d.choose(ctx)
		if err != nil {
			return event.Source{}, err
		}
		d.use(mode)
	}
	return d.entrySource.describe(ctx)
}

// recall takes over the mode that the pipeline was begun in, for good: positions
// of one mode mean nothing to the other.
func (d *deployment) recall(_ context.Context, view *state.View) error {
	id, bound := view.Identity()
	if bound {
		if d.cfg.Mode != ModeAuto && d.cfg.Mode != id.Mode {
			return &finalError{fmt.Errorf("capture pipeline %s: %w: it follows its source by %s, and source.mode is %s: "+
				"hint: set source.mode to %s or %s, or start a new pipeline name with a full load",
				d.cfg.Pipeline, ErrOtherMode, id.Mode, d.cfg.Mode, ModeAuto, id.Mode)}
		}
		d.use(id.Mode)
	}
	if s, ok := d.entrySource.(*streamSource); ok {
		s.known = view.Catalog()
	}
	return nil
}

// choose returns the configured mode, or for auto the oplog where it can be read
// and a change stream elsewhere.
func (d *deployment) choose(ctx context.Context) (string, error) {
	if d.cfg.Mode != ModeAuto {
		return d.cfg.Mode, nil
	}
	what, err := mongodb.Describe(ctx, d.client)
	if err != nil {
		return "", &sourceError{err}
	}
	readable, err := mongodb.OplogReadable(ctx, d.client, what)
	if err != nil {
		return "", &sourceError{err}
	}
	if readable {
		return ModeOplog, nil
	}
	return ModeChangeStream, nil
}

func (d *deployment) use(mode string) {
	if d.entrySource != nil && d.mode == mode {
		return
	}
	d.cfg.Log.Info().Str(logfield.Mode, mode).Msg("source is followed in this mode")
	d.mode = mode
	if mode == ModeChangeStream {
		d.entrySource = &streamSource{cfg: d.cfg, client: d.client}
		return
	}
	d.entrySource = &mongoSource{client: d.client, keep: d.cfg.Select.Match, held: d.cfg.QueueBytes / heldShare, begin: d.cfg.Start, unique: d.cfg.EnforcesUnique, metrics: d.metrics}
}
