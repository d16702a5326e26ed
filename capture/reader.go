package capture

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// job is what the publisher wants to have read: exactly one of list, locate,
// query and scan.
type job struct {
	// after is what has been published.
	after bson.Timestamp
	// list asks for every collection there is.
	list bool
	// locate is the name of a collection, uuid its UUID if known.
	locate event.Namespace
	uuid   event.UUID
	query  *query
	// scan goes on with the scan of a collection, or begins one.
	scan  *located
	begin bool
}

// result is what a job found.
type result struct {
	catalogue []mongodb.CatalogEntry
	found     *located
	reading   *reading
	through   bson.Timestamp
	err       error
}

// readImages does jobs one after another until ctx ends. It has a goroutine of
// its own, so that the stream flows while the source answers.
func readImages(ctx context.Context, source imageSource, jobs <-chan job, results chan<- result) {
	r := imageReader{source: source}
	defer r.end(context.WithoutCancel(ctx))
	for {
		select {
		case j := <-jobs:
			select {
			case results <- r.do(ctx, &j):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// imageReader reads for the publisher.
type imageReader struct {
	source imageSource
	// pass is the scan under way.
	pass scanner
}

func (r *imageReader) do(ctx context.Context, j *job) (res result) {
	if j.scan == nil || j.begin {
		r.end(ctx)
	}
	switch {
	case j.list:
		res.catalogue, res.through, res.err = r.source.list(ctx, j.after)
	case j.scan != nil:
		res.reading, res.err = r.scan(ctx, j)
	case j.query != nil:
		res.reading, res.err = r.source.read(ctx, j.query)
	default:
		res.found, res.through, res.err = r.source.locate(ctx, j.after, j.locate, j.uuid)
	}
	if res.reading != nil {
		res.through = res.reading.through
	}
	if res.err == nil && event.CompareTimes(res.through, j.after) < 0 {
		res.err = &transientError{fmt.Errorf("read documents: the member that answered is behind what was published, at %d.%d", res.through.T, res.through.I)}
	}
	return res
}

func (r *imageReader) scan(ctx context.Context, j *job) (*reading, error) {
	if r.pass == nil {
		var err error
		if r.pass, err = r.source.scan(ctx, j.after, j.scan); err != nil {
			return nil, err
		}
	}
	found, err := r.pass.next(ctx, imageBytes)
	if err != nil || found.last {
		r.end(ctx)
	}
	return found, err
}

// end ends a scan that nobody goes on with.
func (r *imageReader) end(ctx context.Context) {
	if r.pass != nil {
		r.pass.close(ctx)
		r.pass = nil
	}
}

// natural reports whether the collection must be read as a whole, in its natural
// order.
func (l *located) natural() bool { return l.Capped() || !l.ranges }

// unservable says why the collection cannot be read, if so.
func (l *located) unservable(selected func(db, coll string) bool) string {
	switch {
	case l.View:
		return "it is a view"
	case l.Timeseries:
		return "it is a time-series collection"
	case !selected(l.NS.DB, l.NS.Coll):
		return "the configuration does not select " + l.NS.String()
	}
	return ""
}
