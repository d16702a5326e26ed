package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// operation is one case of the conformance suite: something that a client does
// to the source. Its databases belong to it alone.
type operation struct {
	// name is that of its first database; what it uses beside it is
	// name_2 and so on.
	name string
	// databases is how many it uses; 0 means one.
	databases int
	// standin says that the stand-in can do it.
	standin bool
	// before makes what is there before the pipeline starts; may be nil.
	before func(s *scene)
	// do is what the pipeline sees happen; nil means that the load is the case.
	do func(s *scene)
	// orderUnseen says that a change stream of a server that logs diffs (from 4.9)
	// does not tell the order of fields that it leads to.
	orderUnseen bool
	// ordered are collections whose natural order matters.
	ordered []string
}

// operations are all cases.
func operations() []operation {
	return slices.Concat(
		documentOperations(), idOperations(), nameOperations(), updateOperations(), arrayOperations(), pipelineOperations(),
		transactionOperations(), collectionOperations(), renameOperations(), indexOperations(), definitionOperations(), largeOperations(),
	)
}

// unselected is a database that no pipeline of the suite follows.
const unselected = "unselected"

// databaseNames are the operation's own databases.
func (o operation) databaseNames() []string {
	names := []string{o.name}
	for i := 2; i <= o.databases; i++ {
		names = append(names, fmt.Sprintf("%s_%d", o.name, i))
	}
	return names
}

// scene is where an operation happens.
type scene struct {
	t      testing.TB
	ctx    context.Context //nolint:containedctx // A scene lives as long as one step of a test.
	client *mongo.Client
	uri    string
	name   string
}

// must ends the test on an error: the source refused what it should do.
func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("operation %s: %v", s.name, err)
	}
}

// db is the operation's first database, other its numbered ones.
func (s *scene) db() *mongo.Database { return s.client.Database(s.name) }

func (s *scene) other(n int) *mongo.Database {
	return s.client.Database(fmt.Sprintf("%s_%d", s.name, n))
}

func (s *scene) coll(name string) *mongo.Collection { return s.db().Collection(name) }

// run sends a command to the operation's database, admin to the database admin.
func (s *scene) run(command bson.D) {
	s.t.Helper()
	s.must(s.db().RunCommand(s.ctx, command).Err())
}

func (s *scene) admin(command bson.D) {
	s.t.Helper()
	s.must(s.client.Database("admin").RunCommand(s.ctx, command).Err())
}

// rename renames a collection, which may be of another database.
func (s *scene) rename(from, to *mongo.Collection, dropTarget bool) {
	s.t.Helper()
	s.admin(bson.D{
		{Key: "renameCollection", Value: from.Database().Name() + "." + from.Name()},
		{Key: "to", Value: to.Database().Name() + "." + to.Name()},
		{Key: "dropTarget", Value: dropTarget},
	})
}

func (s *scene) insert(coll string, docs ...any) {
	s.t.Helper()
	_, err := s.coll(coll).InsertMany(s.ctx, docs)
	s.must(err)
}

// some inserts documents numbered from first to before end.
func (s *scene) some(coll *mongo.Collection, first, end int) {
	s.t.Helper()
	var docs []any
	for i := first; i < end; i++ {
		docs = append(docs, bson.D{
			{Key: "_id", Value: fmt.Sprint(i)}, {Key: "n", Value: int32(i)}, {Key: "word", Value: fmt.Sprintf("word %d", i%7)},
		})
	}
	_, err := coll.InsertMany(s.ctx, docs)
	s.must(err)
}

// update changes one document.
func (s *scene) update(coll string, filter bson.D, change any, opts ...options.Lister[options.UpdateOneOptions]) {
	s.t.Helper()
	_, err := s.coll(coll).UpdateOne(s.ctx, filter, change, opts...)
	s.must(err)
}

// d is a document of names and values by turns.
func d(pairs ...any) bson.D {
	doc := make(bson.D, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			name = fmt.Sprint(pairs[i])
		}
		doc = append(doc, bson.E{Key: name, Value: pairs[i+1]})
	}
	return doc
}

// byID selects one document.
func byID(id any) bson.D { return d("_id", d("$eq", id)) }
