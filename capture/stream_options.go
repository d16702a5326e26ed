package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// streamOptions are what a deployment's change streams can do beside the common.
type streamOptions struct {
	// expanded: every DDL event is reported (6.0).
	expanded bool
	// split: events over the size of a document come in fragments (6.0.9, 7.0).
	split bool
	// raw: updates are shown as they are logged, as diffs (6.0).
	raw bool
}

// String names the options that are offered.
func (o streamOptions) String() string {
	var names []string
	for name, has := range map[string]bool{"expanded events": o.expanded, "split events": o.split, "raw updates": o.raw} {
		if has {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// pipeline is what follows the stream's own stage.
func (o streamOptions) pipeline() mongo.Pipeline {
	if o.split {
		return mongo.Pipeline{{{Key: "$changeStreamSplitLargeEvent", Value: bson.D{}}}}
	}
	return mongo.Pipeline{}
}

// options are the stream's.
func (o streamOptions) options() *options.ChangeStreamOptionsBuilder {
	opts := options.ChangeStream().SetMaxAwaitTime(awaitTime)
	if o.expanded {
		opts.SetShowExpandedEvents(true)
	}
	if o.raw {
		opts.SetCustomPipeline(bson.M{"showRawUpdateDescription": true})
	}
	return opts
}

// probeStreams finds out what a deployment's change streams can do by opening
// them: what it refuses is left out. Versions are not asked, since features come
// and go with compatibility settings.
func probeStreams(ctx context.Context, client *mongo.Client) (streamOptions, error) {
	var offered streamOptions
	for _, try := range []struct {
		options streamOptions
		result  *bool
	}{
		{streamOptions{expanded: true}, &offered.expanded},
		{streamOptions{split: true}, &offered.split},
		{streamOptions{raw: true}, &offered.raw},
	} {
		stream, err := client.Watch(ctx, try.options.pipeline(), try.options.options())
		if optionRefused(err) {
			continue
		}
		if err != nil {
			return offered, fmt.Errorf("probe change stream: %w", mongodb.Explain(err, "the roles readAnyDatabase and clusterMonitor"))
		}
		*try.result = true
		closeStream(ctx, stream)
	}
	return offered, nil
}

// optionRefused reports whether the server understood who asks and not what for.
func optionRefused(err error) bool {
	const unauthorized, authenticationFailed = 13, 18
	var command mongo.CommandError
	if !errors.As(err, &command) || command.HasErrorCode(unauthorized) || command.HasErrorCode(authenticationFailed) {
		return false
	}
	verdict := mongodb.Classify(err)
	return verdict == retry.Stop || verdict == retry.Other
}

// closeStream ignores the server's answer, as closeCursor does.
func closeStream(ctx context.Context, stream *mongo.ChangeStream) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), awaitTime)
	defer cancel()
	_ = stream.Close(ctx)
}
