package engine

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Primary returns the member that says it is the primary. Members in but, which
// may be frozen or cut off and know no better, are not asked. It asks each once:
// in the middle of an election there is none, which is an error.
func (rs *ReplicaSet) Primary(ctx context.Context, but ...*Member) (*Member, error) {
	for _, m := range rs.Members {
		if slices.Contains(but, m) {
			continue
		}
		var hello struct {
			Primary bool `bson:"isWritablePrimary"`
		}
		err := with(ctx, m.URI, func(ctx context.Context, c *mongo.Client) error {
			return c.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
		})
		if err == nil && hello.Primary {
			return m, nil
		}
	}
	return nil, errors.New("no member says that it is the primary")
}
