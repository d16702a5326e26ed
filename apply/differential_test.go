package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tributarydb/tributary/capture/oplog" //nolint:depguard // The decoder is pure; this test is about what both make of a server's log.
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
)

const (
	// differentialDocs is how many documents are under way at a time, and
	// differentialRounds how many updates each of them sees.
	differentialDocs   = 250
	differentialRounds = 6
)

// differential compares what a real server makes of random updates of random
// documents with what we make of its log, of its change stream and of the diffs
// that newer servers would have logged.
type differential struct {
	t      *testing.T
	g      generator
	client *mongo.Client
	able   abilities
	stream *mongo.ChangeStream
	// changed counts updates that had an effect, refused those that the server
	// would not do.
	changed, refused, byOperators int
	// ambiguous counts updates that only a refresh could bring.
	ambiguous int
	// of one set of documents: the states of each and the events between them,
	// as logged and as diffs.
	states       map[string][]bson.Raw
	logged, diff map[string][]event.Event
	// diffs says that the server logs them. Its change streams do not say which
	// of the fields that a diff sets go to the end.
	diffs bool
}

// described is what a change stream says of an update.
const described = "change stream"

var (
	// The server's own collection, ours by its log, ours by diffs.
	nsServer = event.Namespace{DB: "f", Coll: "server"}
	nsLogged = event.Namespace{DB: "f", Coll: "logged"}
	nsDiffs  = event.Namespace{DB: "f", Coll: "diffs"}
)

// TestDifferential holds our application of updates to the server's own result,
// byte for byte. TRIBUTARY_SOAK=1 makes it 120 000 updates instead of 4 500,
// TRIBUTARY_SEED repeats a run.
func TestDifferential(t *testing.T) {
	cases := 4500
	if os.Getenv("TRIBUTARY_SOAK") != "" {
		cases = 120_000
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TRIBUTARY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	m := testenv.RequireMongoD(t).NewSource(t)
	d := &differential{t: t, g: generator{rand.New(rand.NewPCG(seed, 0))}, client: m.Client}
	if err := probeExact(t.Context(), m.Client, &d.able); err != nil {
		t.Fatal(err)
	}
	d.able.transactions = true // a document may be deleted and inserted anew
	var err error
	if d.stream, err = d.coll(nsServer).Watch(t.Context(), mongo.Pipeline{}, options.ChangeStream().SetBatchSize(1000)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.stream.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	for done := 0; done < cases && !t.Failed(); done += differentialDocs * differentialRounds {
		d.set()
	}
	t.Logf("%d updates had an effect, %d were refused, %d diffs could go by operators, %d were ambiguous, in %s", d.changed, d.refused, d.byOperators, d.ambiguous, time.Since(began).Round(time.Second))
	if d.ambiguous > cases/1000 {
		t.Errorf("%d updates were ambiguous", d.ambiguous)
	}
	if d.changed < cases/3 {
		t.Errorf("only %d of %d updates had an effect", d.changed, cases)
	}
}

func (d *differential) coll(ns event.Namespace) *mongo.Collection {
	opts := options.Collection().SetReadConcern(readconcern.Majority())
	return d.client.Database(ns.DB).Collection(ns.Coll, opts)
}

// set sends one set of documents through its rounds.
func (d *differential) set() {
	for _, ns := range []event.Namespace{nsServer, nsLogged, nsDiffs} {
		if _, err := d.coll(ns).DeleteMany(d.t.Context(), bson.D{}); err != nil {
			d.t.Fatal(err)
		}
	}
	d.states, d.logged, d.diff = map[string][]bson.Raw{}, map[string][]event.Event{}, map[string][]event.Event{}
	for i := range differentialDocs {
		doc := append(bson.D{{Key: "_id", Value: i}}, d.g.document(0)...)
		if _, err := d.coll(nsServer).InsertOne(d.t.Context(), doc); err != nil {
			d.refused++ // names that this version does not insert
		}
	}
	var first []event.Event
	for _, doc := range heldIn(d.t, d.client, nsServer) {
		d.states[doc.Lookup("_id").String()] = []bson.Raw{doc}
		first = append(first, event.Event{Op: event.OpInsert, Document: doc})
	}
	d.write(nsLogged, first)
	d.write(nsDiffs, first)
	for range differentialRounds {
		if d.round(); d.t.Failed() {
			return
		}
	}
	d.replays()
}

// round makes one update of every document and compares.
func (d *differential) round() {
	before := heldIn(d.t, d.client, nsServer)
	var updates bson.A
	statements := map[string]bson.D{}
	for _, doc := range before {
		u := d.g.update(doc)
		statements[doc.Lookup("_id").String()] = u
		updates = append(updates, u)
	}
	since := d.operationTime()
	err := d.client.Database(nsServer.DB).RunCommand(d.t.Context(), bson.D{
		{Key: "update", Value: nsServer.Coll},
		{Key: "updates", Value: updates},
		{Key: "ordered", Value: false},
		{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
	}).Err()
	if write, ok := err.(mongo.WriteException); ok && write.WriteConcernError == nil { //nolint:errorlint // As it came from the driver.
		d.refused += len(write.WriteErrors)
	} else if err != nil {
		d.t.Fatal(err)
	}
	after := heldIn(d.t, d.client, nsServer)
	events := d.entries(since)
	descriptions := d.descriptions(len(events))
	var logged, diffs []event.Event
	for i, doc := range after {
		id := doc.Lookup("_id").String()
		held := before[i]
		e, ok := events[id]
		if !ok {
			if !bytes.Equal(held, doc) {
				d.t.Errorf("no entry for %v\n%s\n%s", statements[id], held, doc)
			}
			continue
		}
		d.changed++
		d.diffs = d.diffs || e.Op == event.OpUpdate && !e.Delta.Ambiguous()
		if d.compare("log", statements[id], held, doc, &e) {
			d.ambiguous++
			e = event.Event{Op: event.OpRefresh, Document: doc, DocumentKey: e.DocumentKey}
		}
		if e, ok := descriptions[id]; ok {
			d.compare(described, statements[id], held, doc, &e)
		} else {
			d.t.Errorf("no change event for %v", statements[id])
		}
		logged = append(logged, e)
		d.states[id] = append(d.states[id], doc)
		d.logged[id] = append(d.logged[id], e)
		diff, ok, err := asDiff(nsDiffs, held, doc)
		if err != nil {
			d.t.Errorf("%v: %v", statements[id], err)
		}
		if !ok {
			diff = event.Event{Op: event.OpReplace, Document: doc}
		} else if o, ok := operatorsOf(diff.Delta); ok && len(o.sets)+len(o.unsets) > 0 {
			d.byOperators++
		}
		d.compare("diff", statements[id], held, doc, &diff)
		diffs = append(diffs, diff)
		d.diff[id] = append(d.diff[id], diff)
	}
	d.write(nsLogged, logged)
	d.write(nsDiffs, diffs)
	d.same(nsLogged, after, statements)
	d.same(nsDiffs, after, statements)
}

// operationTime is the server's time behind everything so far.
func (d *differential) operationTime() bson.Timestamp {
	var last struct {
		TS bson.Timestamp `bson:"ts"`
	}
	err := d.client.Database("local").Collection("oplog.rs").FindOne(d.t.Context(), bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Decode(&last)
	if err != nil {
		d.t.Fatal(err)
	}
	return last.TS
}

// entries are the events of the oplog after a time, by _id.
func (d *differential) entries(since bson.Timestamp) map[string]event.Event {
	cursor, err := d.client.Database("local").Collection("oplog.rs").Find(d.t.Context(), bson.D{
		{Key: "ts", Value: bson.D{{Key: "$gt", Value: since}}}, {Key: "ns", Value: nsServer.String()},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	var list []bson.Raw
	if err := cursor.All(d.t.Context(), &list); err != nil {
		d.t.Fatal(err)
	}
	events := map[string]event.Event{}
	decoder := oplog.Decoder{}
	for _, entry := range list {
		decoded, err := decoder.Decode(entry, nil)
		if err != nil || len(decoded) != 1 {
			d.t.Fatalf("%s: %d events, %v", entry, len(decoded), err)
		}
		id := decoded[0].ID()
		if id.Type == 0 {
			id = decoded[0].Document.Lookup("_id")
		}
		events[id.String()] = decoded[0]
	}
	return events
}

// descriptions are the next n updates of the change stream, by _id.
func (d *differential) descriptions(n int) map[string]event.Event {
	ctx, cancel := context.WithTimeout(d.t.Context(), settled)
	defer cancel()
	events := map[string]event.Event{}
	for len(events) < n && d.stream.Next(ctx) {
		change := slices.Clone(d.stream.Current)
		e := event.Event{Op: event.OpUpdate}
		var err error
		switch kind := change.Lookup("operationType").StringValue(); kind {
		case "replace":
			e.Op = event.OpReplace
			e.Document, err = event.IDFirst(change.Lookup("fullDocument").Document())
		case "update":
			e.Delta, err = event.DeltaFromUpdateDescription(change.Lookup("updateDescription").Document(), event.DotsSeparate)
		default:
			continue
		}
		if err != nil {
			d.t.Fatalf("%s: %v", change, err)
		}
		events[change.Lookup("documentKey", "_id").String()] = e
	}
	if err := d.stream.Err(); err != nil {
		d.t.Fatal(err)
	}
	return events
}

// compare applies an event to a document by the rules alone. It reports whether
// the event was ambiguous for the document, which asks for a refresh.
func (d *differential) compare(how string, statement bson.D, before, want bson.Raw, e *event.Event) (ambiguous bool) {
	d.t.Helper()
	got, err := e.Document, error(nil)
	if e.Op == event.OpUpdate {
		got, err = e.Delta.Apply(before, event.Strict)
	}
	if errors.Is(err, event.ErrDeltaAmbiguous) {
		return true
	}
	if how == described && err == nil && d.diffs && bytes.Equal(fieldsSorted(d.t, got), fieldsSorted(d.t, want)) {
		return false
	}
	if err != nil || !bytes.Equal(got, want) {
		d.t.Errorf("%s: %v\nbefore %s\nwant   %s\ngot    %s\nevent  %s\nerror  %v", how, statement, before, want, got, e.Delta.Raw(), err)
	}
	return false
}

// write has apply write events, as a worker's batch.
func (d *differential) write(ns event.Namespace, events []event.Event) {
	d.t.Helper()
	changes := make([]change, len(events))
	for i, e := range events {
		e.NS = ns
		changes[i] = change{Event: &e, target: ns}
	}
	target := newTarget(d.client, d.able)
	plans, err := fold(changes, event.Strict, target.capped)
	if err == nil && len(plans) > 0 {
		err = target.write(d.t.Context(), plans[0], asSaid, nil)
	}
	if err != nil {
		d.t.Fatalf("write to %s: %v", ns, err)
	}
}

// same wants our collection to be the server's.
func (d *differential) same(ns event.Namespace, want []bson.Raw, statements map[string]bson.D) {
	d.t.Helper()
	got := map[string]bson.Raw{}
	for _, doc := range heldIn(d.t, d.client, ns) {
		got[doc.Lookup("_id").String()] = doc
	}
	for _, doc := range want {
		if id := doc.Lookup("_id").String(); !bytes.Equal(doc, got[id]) {
			d.t.Errorf("%s: %v\nwant %s\ngot  %s", ns, statements[id], doc, got[id])
		}
	}
}

// replays applies the whole history of each document leniently to a random later
// state of it, as catching up does, and wants the last state. What servers log
// as paths does not say where a field goes that is removed and set again.
func (d *differential) replays() {
	for id, states := range d.states {
		from := d.g.IntN(len(states))
		want := states[len(states)-1]
		if got, err := replayed(states[from], d.diff[id]); err != nil || !bytes.Equal(got, want) {
			d.t.Errorf("replay of diffs over state %d of %d: %v\nwant %s\ngot  %s\n%s", from, len(states), err, want, got, history2text(states, d.diff[id]))
		}
		got, err := replayed(states[from], d.logged[id])
		if err != nil || !bytes.Equal(fieldsSorted(d.t, got), fieldsSorted(d.t, want)) {
			d.t.Errorf("replay of the log over state %d of %d: %v\nwant %s\ngot  %s\n%s", from, len(states), err, want, got, history2text(states, d.logged[id]))
		}
	}
}

func replayed(doc bson.Raw, events []event.Event) (bson.Raw, error) {
	for _, e := range events {
		if e.Op == event.OpReplace || e.Op == event.OpRefresh {
			doc = e.Document
			continue
		}
		var err error
		if doc, err = e.Delta.Apply(doc, event.Lenient); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

func history2text(states []bson.Raw, events []event.Event) string {
	text := fmt.Sprintf("   %s\n", states[0])
	for i, e := range events {
		text += fmt.Sprintf("%s %s %s\n   %s\n", e.Op, e.Delta.Raw(), e.Document, states[i+1])
	}
	return text
}

// fieldsSorted orders the fields of a document and of those inside it.
func fieldsSorted(t *testing.T, doc bson.Raw) bson.Raw {
	t.Helper()
	var d bson.D
	if err := bson.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	sortFields(d)
	return raw(t, d)
}

func sortFields(v any) {
	switch v := v.(type) {
	case bson.D:
		slices.SortStableFunc(v, func(a, b bson.E) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
		for _, e := range v {
			sortFields(e.Value)
		}
	case bson.A:
		for _, e := range v {
			sortFields(e)
		}
	}
}
