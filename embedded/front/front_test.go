package front

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func raw(t testing.TB, v any) bson.Raw {
	t.Helper()
	doc, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestMessageRoundTrip(t *testing.T) {
	body := raw(t, bson.D{{Key: "insert", Value: "orders"}, {Key: "$db", Value: "shop"}})
	documents := []bson.Raw{raw(t, bson.D{{Key: "_id", Value: 1}}), raw(t, bson.D{{Key: "_id", Value: 2}})}
	m, err := read(bytes.NewReader(encode(7, 8, body, sequence{name: "documents", documents: documents})))
	if err != nil {
		t.Fatal(err)
	}
	c, err := decode(m)
	if err != nil {
		t.Fatal(err)
	}
	want := command{requestID: 7, body: body, sequences: []sequence{{name: "documents", documents: documents}}}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(command{}, sequence{})); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if c.name() != "insert" {
		t.Errorf("name is %q", c.name())
	}
}

func TestStatementsInBodyAndBeside(t *testing.T) {
	statement := raw(t, bson.D{{Key: "q", Value: bson.D{}}})
	head := bson.D{{Key: "update", Value: "orders"}, {Key: "$db", Value: "shop"}}
	tests := map[string]command{
		"body":   {body: raw(t, append(head[:1:1], bson.E{Key: "updates", Value: bson.A{statement}}, head[1]))},
		"beside": {body: raw(t, head), sequences: []sequence{{name: "updates", documents: []bson.Raw{statement}}}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			body, statements, err := c.statements("updates")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(raw(t, head), body); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]bson.Raw{statement}, statements); diff != "" {
				t.Errorf("statements (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStartOfTail(t *testing.T) {
	ts := bson.Timestamp{T: 5, I: 7}
	tests := map[string]struct {
		filter bson.D
		want   int64
	}{
		"from":   {bson.D{{Key: "ts", Value: bson.D{{Key: "$gte", Value: ts}}}}, 5<<32 | 6},
		"after":  {bson.D{{Key: "ts", Value: bson.D{{Key: "$gt", Value: ts}}}}, 5<<32 | 6},
		"before": {bson.D{{Key: "ts", Value: bson.D{{Key: "$lt", Value: ts}}}}, 0},
		"equal":  {bson.D{{Key: "ts", Value: ts}}, 0},
		"none":   {bson.D{}, 0},
	}
	for name, test := range tests {
		if got := startOf(raw(t, test.filter)); got != test.want {
			t.Errorf("%s: start is %d, want %d", name, got, test.want)
		}
	}
}

// TestEndsWithItsServer sees to it that a client whose server cannot be reached
// is not left waiting, and that the front stops with clients connected.
func TestEndsWithItsServer(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(Config{Listener: listener, Server: closed.Addr().String()}).Run(ctx) }()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := read(client); err == nil {
		t.Error("client got an answer from nowhere")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("front ended with %v", err)
	}
}

func TestRefusedNamesTheField(t *testing.T) {
	c := command{
		body: raw(t, bson.D{{Key: "insert", Value: "orders"}}),
		sequences: []sequence{{name: "documents", documents: []bson.Raw{
			raw(t, bson.D{{Key: "a", Value: bson.A{bson.D{{Key: "b", Value: bson.MinKey{}}}}}}),
		}}},
	}
	if err := c.refused(); err == nil || !strings.Contains(err.Error(), "documents.0.a.0.b") {
		t.Errorf("error %v, want one that names documents.0.a.0.b", err)
	}
}

func FuzzDecode(f *testing.F) {
	body := raw(f, bson.D{{Key: "insert", Value: "orders"}, {Key: "updates", Value: bson.A{bson.D{}}}})
	f.Add([]byte(encode(1, 2, body, sequence{name: "documents", documents: []bson.Raw{body}})))
	f.Add([]byte(encode(1, 2, body)))
	f.Fuzz(func(t *testing.T, input []byte) {
		m, err := read(bytes.NewReader(input))
		if err != nil {
			return
		}
		c, err := decode(m)
		if err != nil {
			return
		}
		c.name()
		if err := c.refused(); err != nil {
			return
		}
		if _, _, err := c.statements("updates"); err != nil {
			return
		}
		again, err := decode(encode(c.requestID, 0, c.body, c.sequences...))
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		again.flags = c.flags
		if diff := cmp.Diff(c, again, cmp.AllowUnexported(command{}, sequence{})); diff != "" {
			t.Errorf("command (-want +got):\n%s", diff)
		}
	})
}
