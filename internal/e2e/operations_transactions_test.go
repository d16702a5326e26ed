package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// transactionOperations write in transactions, and documents of the largest
// size.
func transactionOperations() []operation {
	before := func(s *scene) {
		s.some(s.coll("c"), 0, 20)
		s.some(s.coll("other"), 0, 20)
	}
	return []operation{
		{name: "transaction_single", before: before, do: func(s *scene) {
			s.transact(s.few)
		}},
		{name: "transaction_of_one", before: before, do: func(s *scene) {
			s.transact(func(ctx context.Context) error {
				_, err := s.coll("c").UpdateOne(ctx, d("_id", "1"), d("$inc", d("n", 1)))
				return err
			})
		}},
		{name: "transaction_aborted", before: before, do: func(s *scene) {
			undo := errors.New("undo")
			session, err := s.client.StartSession()
			s.must(err)
			defer session.EndSession(s.ctx)
			_, err = session.WithTransaction(s.ctx, func(ctx context.Context) (any, error) { return nil, errors.Join(s.mixed(ctx, 0), undo) })
			if !errors.Is(err, undo) {
				s.must(err)
			}
			s.some(s.coll("c"), 20, 22)
		}},
		{name: "transaction_creates", do: func(s *scene) {
			s.transact(func(ctx context.Context) error {
				if err := s.db().CreateCollection(ctx, "made"); err != nil {
					return err
				}
				_, err := s.coll("made").InsertOne(ctx, d("_id", 1))
				return err
			})
			s.transact(func(ctx context.Context) error {
				_, err := s.coll("implicit").InsertOne(ctx, d("_id", 1))
				return err
			})
		}},
		{name: "transaction_chained", before: before, do: func(s *scene) {
			s.transact(func(ctx context.Context) error { return s.mixed(ctx, 0) })
			s.some(s.coll("c"), 20, 22)
		}},
		{name: "transaction_chained_large", before: before, do: func(s *scene) {
			// More bytes than an oplog entry holds.
			s.transact(func(ctx context.Context) error {
				for i := range 2 {
					if _, err := s.coll("c").InsertOne(ctx, d("_id", fmt.Sprint("large ", i), "pad", strings.Repeat("x", 9<<20))); err != nil {
						return err
					}
				}
				return nil
			})
		}},
		{name: "transaction_prepared", before: before, do: func(s *scene) { s.prepared(s.few, "commitTransaction") }},
		{name: "transaction_prepared_chained", before: before, do: func(s *scene) {
			s.prepared(func(ctx context.Context) error { return s.mixed(ctx, 0) }, "commitTransaction")
		}},
		{name: "transaction_prepared_aborted", before: before, do: func(s *scene) { s.prepared(s.few, "abortTransaction") }},
		{name: "transactions_side_by_side", before: before, do: sideBySide},
	}
}

// perEntry is how many operations of a transaction the source puts into one
// oplog entry: few does not go beyond it, mixed does.
const perEntry = 5

// few writes as much as an entry holds.
func (s *scene) few(ctx context.Context) error {
	_, err := s.coll("c").InsertOne(ctx, d("_id", "few", "n", 1))
	if err == nil {
		_, err = s.coll("c").UpdateOne(ctx, d("_id", "few"), d("$inc", d("n", 1)))
	}
	if err == nil {
		_, err = s.coll("other").ReplaceOne(ctx, d("_id", "6"), d("replaced", true))
	}
	if err == nil {
		_, err = s.coll("other").DeleteOne(ctx, d("_id", "7"))
	}
	return err
}

// mixed writes a little of everything to two collections.
func (s *scene) mixed(ctx context.Context, n int) error {
	_, err := s.coll("c").InsertMany(ctx, []any{d("_id", fmt.Sprint("new ", n), "n", n), d("_id", fmt.Sprint("gone ", n))})
	for _, coll := range []string{"c", "other"} {
		if err == nil {
			_, err = s.coll(coll).UpdateMany(ctx, d("n", d("$lt", 5)), d("$inc", d("n", 1), "$set", d("together", n)))
		}
		if err == nil {
			_, err = s.coll(coll).ReplaceOne(ctx, d("_id", "6"), d("replaced", n))
		}
		if err == nil {
			_, err = s.coll(coll).DeleteOne(ctx, d("_id", fmt.Sprint(10+n)))
		}
	}
	if err == nil {
		_, err = s.coll("c").DeleteOne(ctx, d("_id", fmt.Sprint("gone ", n)))
	}
	return err
}

// transact runs a transaction to its commit.
func (s *scene) transact(do func(ctx context.Context) error) {
	s.t.Helper()
	session, err := s.client.StartSession()
	s.must(err)
	defer session.EndSession(s.ctx)
	_, err = session.WithTransaction(s.ctx, func(ctx context.Context) (any, error) { return nil, do(ctx) })
	s.must(err)
}

// prepared runs a transaction as a router's two-phase commit does, and writes
// between its two phases; second is the command of the second one.
func (s *scene) prepared(do func(ctx context.Context) error, second string) {
	s.t.Helper()
	session, err := s.client.StartSession()
	s.must(err)
	defer session.EndSession(s.ctx)
	s.must(session.StartTransaction())
	s.must(mongo.WithSession(s.ctx, session, func(ctx context.Context) error {
		if err := do(ctx); err != nil {
			return err
		}
		admin := s.client.Database("admin")
		var reply struct {
			Time bson.Timestamp `bson:"prepareTimestamp"`
		}
		err := admin.RunCommand(ctx, d("prepareTransaction", 1, "writeConcern", d("w", "majority"))).Decode(&reply)
		if err != nil {
			return err
		}
		s.some(s.coll("c"), 20, 25)
		if second == "commitTransaction" {
			return admin.RunCommand(ctx, d(second, 1, "commitTimestamp", reply.Time)).Err()
		}
		return admin.RunCommand(ctx, d(second, 1)).Err()
	}))
	s.some(s.coll("c"), 25, 27)
}

// sideBySide has two transactions open at the same time; the second one to
// begin is the first one to commit.
func sideBySide(s *scene) {
	first, err := s.client.StartSession()
	s.must(err)
	defer first.EndSession(s.ctx)
	s.must(first.StartTransaction())
	s.must(mongo.WithSession(s.ctx, first, func(ctx context.Context) error {
		_, err := s.coll("c").UpdateOne(ctx, d("_id", "1"), d("$set", d("by", "first")))
		return err
	}))
	s.transact(func(ctx context.Context) error {
		_, err := s.coll("c").UpdateOne(ctx, d("_id", "2"), d("$set", d("by", "second")))
		return err
	})
	s.update("c", d("_id", "3"), d("$set", d("by", "nobody")))
	s.must(mongo.WithSession(s.ctx, first, func(ctx context.Context) error {
		if _, err := s.coll("c").UpdateOne(ctx, d("_id", "4"), d("$set", d("by", "first"))); err != nil {
			return err
		}
		return first.CommitTransaction(ctx)
	}))
}

// largest is the size of the largest document.
const largest = 16 << 20

// filledTo is a document of exactly that size.
func filledTo(s *scene, id string, size int) bson.D {
	empty := d("_id", id, "n", int32(0), "pad", "")
	return d("_id", id, "n", int32(0), "pad", strings.Repeat("x", size-len(raw(s, empty))))
}

func largeOperations() []operation {
	return []operation{
		{name: "large_loaded", before: func(s *scene) { s.insert("c", filledTo(s, "1", largest)) }, do: func(s *scene) {
			s.update("c", d("_id", "1"), d("$set", d("n", int32(1))))
		}},
		{name: "large_inserted", do: func(s *scene) {
			s.insert("c", filledTo(s, "1", largest))
			s.update("c", d("_id", "1"), d("$inc", d("n", int32(1))))
		}},
		{name: "large_replaced", before: func(s *scene) { s.insert("c", d("_id", "1"), d("_id", "2")) }, do: func(s *scene) {
			_, err := s.coll("c").ReplaceOne(s.ctx, d("_id", "1"), filledTo(s, "1", largest))
			s.must(err)
			s.update("c", d("_id", "2"), d("$set", d("pad", strings.Repeat("y", largest-100))))
			_, err = s.coll("c").DeleteOne(s.ctx, d("_id", "1"))
			s.must(err)
		}},
	}
}
