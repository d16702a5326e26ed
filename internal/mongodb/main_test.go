package mongodb_test

import (
	"testing"

	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// raw reads Extended JSON, order kept.
func raw(t *testing.T, text string) bson.Raw {
	t.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(text), false, &d); err != nil {
		t.Fatal(err)
	}
	b, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
