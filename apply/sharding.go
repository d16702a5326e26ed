package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Sharding says which collections of a sharded destination are sharded when
// they are made, and how. What holds documents stays as it is.
type Sharding struct {
	// Rules are tried in their order; the first that matches decides.
	Rules []ShardRule
	// HashedID shards by hashed _id what no rule matches.
	HashedID bool
}

// None reports whether nothing is sharded.
func (s *Sharding) None() bool { return len(s.Rules) == 0 && !s.HashedID }

// ShardRule is how some collections are sharded.
type ShardRule struct {
	// Match selects collections by their names in the destination.
	Match func(db, coll string) bool
	// Key is {field: 1 or "hashed", …}; empty leaves them unsharded.
	Key    bson.Raw
	Unique bool
	// Chunks is how many chunks a collection whose key begins with a hashed
	// field has at first; zero leaves it to the server.
	Chunks int
	// SplitAt are bounds between the first chunks of any other, each {field:
	// value, …} with the first fields of the key or all.
	SplitAt []bson.Raw
}

// hashed reports whether the key begins with a hashed field.
func (r *ShardRule) hashed() bool {
	first, err := r.Key.IndexErr(0)
	if err != nil {
		return false
	}
	_, text := first.Value().StringValueOK()
	return text
}

// ruleFor returns the rule for a target; nil leaves it unsharded.
func (s *Sharding) ruleFor(target event.Namespace) *ShardRule {
	for i := range s.Rules {
		if r := &s.Rules[i]; r.Match(target.DB, target.Coll) {
			if len(r.Key) == 0 {
				return nil
			}
			return r
		}
	}
	if s.HashedID {
		return &ShardRule{Key: hashedID()}
	}
	return nil
}

func hashedID() bson.Raw {
	key, at := rawbson.Begin(nil)
	return rawbson.End(rawbson.AppendString(key, "_id", "hashed"), at)
}

// sharder shards the collections that apply makes, while they are empty. Nil
// does nothing.
type sharder struct {
	client *mongo.Client
	rules  Sharding
	log    zerolog.Logger
}

// spread shards the event's target, as sharder.spread.
func (x *executor) spread(ctx context.Context, target event.Namespace, opts bson.Raw) error {
	if x.shards == nil {
		return nil
	}
	if err := x.hold(ctx); err != nil {
		return err
	}
	err := x.shards.spread(ctx, target, opts)
	var conflict *conflictError
	if errors.As(err, &conflict) {
		return &ddlError{x.event, err}
	}
	return err
}

// newSharder returns the destination's sharder; nil where nothing is to be
// sharded.
func (s *Service) newSharder() *sharder {
	if s.cfg.Sharding.None() || !s.able.sharded {
		return nil
	}
	return &sharder{client: s.client, rules: s.cfg.Sharding, log: s.log}
}

// spread shards a collection that was just made with those options, and spreads
// its first chunks. It may be repeated. A collection that is sharded already
// must be so by the key that the rules say.
func (s *sharder) spread(ctx context.Context, target event.Namespace, opts bson.Raw) error {
	if s == nil {
		return nil
	}
	rule := s.rules.ruleFor(target)
	if rule == nil || has(opts, "viewOn") {
		return nil
	}
	listed := listedCollection{Options: opts}
	if listed.Capped() {
		s.log.Warn().Str(logfield.Target, target.String()).Msg("a capped collection cannot be sharded: it is unsharded, whatever the rules of sharding say")
		return nil
	}
	held, sharded, err := shardingOf(ctx, s.client, target)
	if err != nil {
		return err
	}
	if filled, err := s.filled(ctx, target); err != nil || filled {
		if filled && !sharded {
			s.log.Warn().Str(logfield.Target, target.String()).Msg("the collection holds documents already: it stays unsharded, whatever the rules of sharding say")
		}
		return err
	}
	if sharded && !bytes.Equal(held.Key, rule.Key) && !sameKeyPattern(held.Key, rule.Key) {
		return &conflictError{target, fmt.Sprintf("it is sharded by %s and the rules of sharding say %s", held.Key, rule.Key)}
	}
	if !sharded {
		if err := s.shard(ctx, target, rule, &listed); err != nil {
			return err
		}
	}
	if len(rule.SplitAt) == 0 {
		return nil
	}
	if err := s.split(ctx, target, rule); err != nil {
		return err
	}
	return s.balance(ctx, target)
}

// filled reports whether a collection holds documents.
func (s *sharder) filled(ctx context.Context, target event.Namespace) (bool, error) {
	opts := options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})
	err := s.client.Database(target.DB).Collection(target.Coll).FindOne(ctx, bson.D{}, opts).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at target %s: %w", target, sanitize(err))
	}
	return true, nil
}

func has(doc bson.Raw, name string) bool {
	_, err := doc.LookupErr(name)
	return err == nil
}

// sameKeyPattern reports whether two keys are the same, whatever the types of
// their numbers.
func sameKeyPattern(a, b bson.Raw) bool {
	left, errLeft := a.Elements()
	right, errRight := b.Elements()
	return errors.Join(errLeft, errRight) == nil && slices.EqualFunc(left, right, func(x, y bson.RawElement) bool {
		hashedX, textX := x.Value().StringValueOK()
		hashedY, textY := y.Value().StringValueOK()
		return x.Key() == y.Key() && textX == textY && hashedX == hashedY
	})
}

// shard shards an empty collection.
func (s *sharder) shard(ctx context.Context, target event.Namespace, rule *ShardRule, listed *listedCollection) error {
	admin := s.client.Database("admin")
	if err := admin.RunCommand(ctx, bson.D{{Key: "enableSharding", Value: target.DB}}).Err(); err != nil {
		return shardingFault("enable sharding db="+target.DB, err)
	}
	cmd := bson.D{{Key: "shardCollection", Value: target.String()}, {Key: "key", Value: rule.Key}}
	if rule.Unique {
		cmd = append(cmd, field("unique", true))
	}
	if rule.Chunks > 0 && rule.hashed() {
		cmd = append(cmd, field("numInitialChunks", rule.Chunks))
	}
	if listed.Collated() {
		// Documents are spread by their bytes, whatever their order.
		cmd = append(cmd, field("collation", bson.D{{Key: "locale", Value: "simple"}}))
	}
	if err := admin.RunCommand(ctx, cmd).Err(); err != nil {
		return shardingFault("shard collection ns="+target.String(), err)
	}
	s.log.Info().Str(logfield.Target, target.String()).Stringer("key", rule.Key).Msg("collection is sharded")
	return nil
}

// shardingFault names the remedy of what a router refuses.
func shardingFault(what string, err error) error {
	const unauthorized = 13
	if hasCode(err, unauthorized) {
		return &stateError{fmt.Errorf("%s: %w: hint: give the destination's user the role clusterManager, or shard the collections yourself and remove the rules of sharding", what, sanitize(err))}
	}
	return fmt.Errorf("%s: %w", what, sanitize(err))
}

// chunk is one of config.chunks.
type shardChunk struct {
	Min   bson.Raw `bson:"min"`
	Max   bson.Raw `bson:"max"`
	Shard string   `bson:"shard"`
}

// chunks reads the chunks of a collection in their order.
func (s *sharder) chunks(ctx context.Context, target event.Namespace) ([]shardChunk, error) {
	config := s.client.Database("config")
	var coll struct {
		UUID bson.RawValue `bson:"uuid"`
	}
	if err := config.Collection("collections").FindOne(ctx, byID(target.String())).Decode(&coll); err != nil {
		return nil, fmt.Errorf("look up chunks ns=%s: %w", target, sanitize(err))
	}
	// By name before 5.0, by UUID since.
	of := bson.A{bson.D{{Key: "ns", Value: target.String()}}}
	if coll.UUID.Type != 0 {
		of = append(of, bson.D{{Key: "uuid", Value: coll.UUID}})
	}
	cursor, err := config.Collection("chunks").Find(ctx, bson.D{{Key: "$or", Value: of}}, options.Find().SetSort(bson.D{{Key: "min", Value: 1}}))
	var list []shardChunk
	if err == nil {
		err = cursor.All(ctx, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("look up chunks ns=%s: %w", target, sanitize(err))
	}
	return list, nil
}

// split cuts an empty collection at the rule's bounds. Like balance it only saves
// work: where the cluster moves a chunk at that moment, it may refuse.
func (s *sharder) split(ctx context.Context, target event.Namespace, rule *ShardRule) error {
	chunks, err := s.chunks(ctx, target)
	if err != nil {
		return err
	}
	for _, at := range rule.SplitAt {
		bound, err := wholeBound(rule.Key, at)
		if err != nil {
			return &stateError{fmt.Errorf("split collection ns=%s: %w", target, err)}
		}
		if slices.ContainsFunc(chunks, func(c shardChunk) bool { return bytes.Equal(c.Min, bound) }) {
			continue
		}
		err = s.client.Database("admin").RunCommand(ctx, bson.D{{Key: "split", Value: target.String()}, {Key: "middle", Value: bound}}).Err()
		if err != nil && ctx.Err() == nil {
			s.log.Warn().Err(sanitize(err)).Str(logfield.Target, target.String()).Stringer("at", bound).Msg("a chunk could not be split while empty; it is left to the cluster")
			return nil
		}
		if err != nil {
			return fmt.Errorf("split collection ns=%s: %w", target, sanitize(err))
		}
	}
	return nil
}

// wholeBound completes a bound that has the first fields of a key with MinKey.
func wholeBound(key, at bson.Raw) (bson.Raw, error) {
	fields, err := key.Elements()
	if err != nil {
		return nil, fmt.Errorf("read shard key: %w", err)
	}
	given, err := at.Elements()
	if err != nil {
		return nil, fmt.Errorf("read split_at: %w", err)
	}
	if len(given) > len(fields) {
		return nil, fmt.Errorf("split_at %s has more fields than the key %s", at, key)
	}
	dst, begin := rawbson.Begin(nil)
	for i, f := range fields {
		switch {
		case i >= len(given):
			dst = rawbson.AppendHeader(dst, bson.TypeMinKey, f.Key())
		case given[i].Key() != f.Key():
			return nil, fmt.Errorf("split_at %s does not have the fields of the key %s in their order", at, key)
		default:
			dst = append(dst, given[i]...)
		}
	}
	return rawbson.End(dst, begin), nil
}

// balance deals the chunks of an empty collection out over the shards. That only
// saves the cluster's balancer work: where a chunk does not move, it is left to
// that.
func (s *sharder) balance(ctx context.Context, target event.Namespace) error {
	shards, err := s.shards(ctx)
	if err != nil {
		return err
	}
	chunks, err := s.chunks(ctx, target)
	if err != nil {
		return err
	}
	for i, c := range chunks {
		to := shards[i%len(shards)]
		if c.Shard == to {
			continue
		}
		err := s.client.Database("admin").RunCommand(ctx, bson.D{
			{Key: "moveChunk", Value: target.String()}, {Key: "bounds", Value: bson.A{c.Min, c.Max}}, {Key: "to", Value: to}, {Key: "_waitForDelete", Value: true},
		}).Err()
		if err != nil && ctx.Err() == nil {
			s.log.Warn().Err(sanitize(err)).Str(logfield.Target, target.String()).Str("shard", to).Msg("a chunk could not be moved while empty; it is left to the balancer")
			return nil
		}
		if err != nil {
			return fmt.Errorf("move chunk ns=%s: %w", target, sanitize(err))
		}
	}
	return nil
}

// shards lists the cluster's shards by name.
func (s *sharder) shards(ctx context.Context) ([]string, error) {
	var answer struct {
		Shards []struct {
			ID string `bson:"_id"`
		} `bson:"shards"`
	}
	if err := s.client.Database("admin").RunCommand(ctx, bson.D{{Key: "listShards", Value: 1}}).Decode(&answer); err != nil {
		return nil, shardingFault("list shards", err)
	}
	names := make([]string, len(answer.Shards))
	for i, shard := range answer.Shards {
		names[i] = shard.ID
	}
	if len(names) == 0 {
		return nil, errors.New("list shards: the cluster has none")
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}
