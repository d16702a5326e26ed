package apply

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// index is an index in its two forms.
type index struct {
	name string
	// spec is the source's, in creatable form; built is what the destination
	// builds before the operator finalises.
	spec, built bson.Raw
	// reason is why they differ, or empty.
	reason string
}

// indexOfSpec prepares an index as listIndexes or the oplog show it. The _id
// index is none: every collection has it from its creation.
func indexOfSpec(stored bson.Raw, policy rules.IndexPolicy) (ix index, ok bool, err error) {
	spec, err := mongodb.CreatableIndex(stored)
	if err != nil {
		return index{}, false, err
	}
	name, hasName := spec.Lookup("name").StringValueOK()
	if !hasName {
		return index{}, false, errors.New("read index: it has no name")
	}
	if name == "_id_" {
		return index{}, false, nil
	}
	built, deferred, err := rules.DeferIndex(spec, policy)
	if err != nil {
		return index{}, false, err
	}
	ix = index{name: name, spec: spec, built: built}
	if deferred {
		ix.reason, err = policyAfter(spec, policy)
	}
	return ix, err == nil, err
}

// buildIndexes builds indexes on a target in one command where that works, else
// one by one; what fails for good is recorded as deferred and reported, and is
// no error. What is deferred by rule is recorded as well. It returns how many
// failed. It may be repeated.
func (s *store) buildIndexes(ctx context.Context, client *mongo.Client, target event.Namespace, indexes []index, lenient bool) (failed int, err error) {
	if len(indexes) == 0 {
		return 0, nil
	}
	listed, _, err := lookup(ctx, client, target)
	if err != nil {
		return 0, err
	}
	all := make([]bson.Raw, len(indexes))
	for i, ix := range indexes {
		if all[i], err = mongodb.ExplicitCollation(ix.built, listed.Options); err != nil {
			return 0, fmt.Errorf("build indexes ns=%s: %w", target, err)
		}
	}
	db := client.Database(target.DB)
	err = createIndexes(ctx, db, target.Coll, all)
	if err == nil {
		return 0, s.deferByRule(ctx, target, indexes...)
	}
	if !refusedIndex(err) {
		return 0, err
	}
	for i, ix := range indexes {
		err := createIndexes(ctx, db, target.Coll, all[i:i+1])
		switch {
		case err == nil, lenient && hasCode(err, codeIndexOptionsConflict, codeIndexKeySpecsConflict):
			// Of the latter a later form was loaded; the events up to that follow.
			err = s.deferByRule(ctx, target, ix)
		case refusedIndex(err):
			failed++
			err = s.deferIndex(ctx, target, ix, deferredFailed, sanitize(err).Error())
		}
		if err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// deferByRule records what a rule defers of indexes that were built. That comes
// behind the build: until then, whoever repeats it finds the index where it found
// it before, among those that the reload of its collection has yet to build, say.
func (s *store) deferByRule(ctx context.Context, target event.Namespace, indexes ...index) error {
	for _, ix := range indexes {
		if ix.reason == "" {
			continue
		}
		if err := s.deferIndex(ctx, target, ix, ix.reason, ""); err != nil {
			return err
		}
	}
	return nil
}

// refusedIndex reports whether the server will not build the index whenever it
// is asked.
func refusedIndex(err error) bool {
	var answer mongo.CommandError
	if !errors.As(err, &answer) || hasCode(err, codeNamespaceNotFound, codeIndexBuildAborted) {
		return false
	}
	// Errors of single documents (a key that cannot be indexed) have codes of
	// their own, which no list holds; what Classify knows as passing is not
	// among them.
	verdict := mongodb.Classify(err)
	return verdict == retry.Stop || verdict == retry.Other && !hasCode(err, codeMaxTimeMSExpired)
}

// createIndexes sends one command. Indexes that exist as asked for are success.
func createIndexes(ctx context.Context, db *mongo.Database, coll string, specs []bson.Raw) error {
	dst, at := rawbson.Begin(nil)
	dst = rawbson.AppendString(dst, "createIndexes", coll)
	dst = rawbson.AppendHeader(dst, bson.TypeArray, "indexes")
	dst, array := rawbson.Begin(dst)
	for i, spec := range specs {
		dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, strconv.Itoa(i), spec)
	}
	dst = rawbson.End(dst, array)
	dst = appendMajority(dst)
	err := db.RunCommand(ctx, bson.Raw(rawbson.End(dst, at))).Err()
	if err != nil && !hasCode(err, codeIndexAlreadyExists) {
		return fmt.Errorf("create indexes ns=%s.%s: %w", db.Name(), coll, sanitize(err))
	}
	return nil
}

// appendMajority appends the write concern majority.
func appendMajority(dst []byte) []byte {
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "writeConcern")
	dst, concern := rawbson.Begin(dst)
	dst = rawbson.AppendString(dst, "w", "majority")
	return rawbson.End(dst, concern)
}

// deferIndex records that an index waits for the operator.
func (s *store) deferIndex(ctx context.Context, target event.Namespace, ix index, reason, cause string) error {
	id := deferredID{Pipeline: s.id.Pipeline, NS: target.String(), Index: ix.name}
	record := deferredRecord{ID: id, Spec: ix.spec, Reason: reason, Error: cause}
	_, err := s.db.Collection(deferredCollection).ReplaceOne(ctx, byID(id), record, options.Replace().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("record deferred index ns=%s index=%s: %w", target, ix.name, sanitize(err))
	}
	return nil
}

// forgetIndexes takes deferred indexes of a target off the record: one by name,
// or all for an empty name.
func (s *store) forgetIndexes(ctx context.Context, target event.Namespace, name string) error {
	filter := s.indexesOf(target)
	if name != "" {
		filter = append(filter, bson.E{Key: "_id.index", Value: name})
	}
	if _, err := s.db.Collection(deferredCollection).DeleteMany(ctx, filter); err != nil {
		return fmt.Errorf("forget deferred indexes ns=%s: %w", target, sanitize(err))
	}
	if name == "" {
		return s.forgetFinalized(ctx, target)
	}
	return nil
}

// moveIndexes renames the target of deferred indexes.
func (s *store) moveIndexes(ctx context.Context, from, to event.Namespace) error {
	coll := s.db.Collection(deferredCollection)
	cursor, err := coll.Find(ctx, bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.ns", Value: from.String()}})
	if err != nil {
		return fmt.Errorf("read deferred indexes ns=%s: %w", from, err)
	}
	var list []deferredRecord
	if err := cursor.All(ctx, &list); err != nil {
		return fmt.Errorf("read deferred indexes ns=%s: %w", from, err)
	}
	for _, d := range list {
		if err := s.deferIndex(ctx, to, index{name: d.ID.Index, spec: d.Spec}, d.Reason, d.Error); err != nil {
			return err
		}
	}
	if err := s.moveFinalized(ctx, from, to); err != nil {
		return err
	}
	return s.forgetIndexes(ctx, from, "")
}
