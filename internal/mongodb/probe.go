package mongodb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// cleanTimeout bounds the removal of what a probe wrote, which happens also
// when its context has ended.
const cleanTimeout = 5 * time.Second

// ProbeTransactions finds out whether transactions really work, not whether the
// server says so: it writes a document of its own to database tributary in a
// transaction, rolls back and looks. Where they do not, reason says why in a
// few words; err is for what says nothing about transactions, such as a lost
// connection.
func ProbeTransactions(ctx context.Context, client *mongo.Client) (works bool, reason string, err error) {
	coll := client.Database(ownDatabase).Collection("probe")
	id := bson.NewObjectID()
	// The collection must exist before the transaction: creating one inside
	// is another ability.
	err = client.Database(ownDatabase).CreateCollection(ctx, coll.Name())
	if err != nil && !hasCode(err, 48) { // NamespaceExists
		return false, "", fmt.Errorf("create collection for transaction probe: %w", Explain(err, "readWrite on database tributary"))
	}
	refused, err := rollBack(ctx, client, coll, id)
	if err != nil {
		return false, "", err
	}
	if refused != nil {
		return false, "the server refuses transactions: " + oneLine(refused.Error()), nil
	}
	err = coll.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Err()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return true, "a rolled-back write left nothing behind", nil
	case err != nil:
		return false, "", fmt.Errorf("look for the transaction probe's document: %w", err)
	}
	if _, err := coll.DeleteOne(ctx, bson.D{{Key: "_id", Value: id}}); err != nil {
		return false, "", fmt.Errorf("remove the transaction probe's document: %w", err)
	}
	return false, "a rolled-back write stayed", nil
}

// rollBack writes a document in a transaction and aborts it. What the server
// answers instead of taking part is refused.
func rollBack(ctx context.Context, client *mongo.Client, coll *mongo.Collection, id bson.ObjectID) (refused, err error) {
	session, err := client.StartSession()
	if err != nil {
		return err, nil // the driver found no sessions
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	defer session.EndSession(end)
	if err := session.StartTransaction(); err != nil {
		return err, nil
	}
	_, write := coll.InsertOne(mongo.NewSessionContext(ctx, session), bson.D{{Key: "_id", Value: id}})
	abort := session.AbortTransaction(ctx)
	if write == nil {
		write = abort
	}
	if write == nil {
		return nil, nil
	}
	if Classify(write) == retry.Stop && !hasCode(write, codeUnauthorized) && ctx.Err() == nil && !errors.Is(write, context.Canceled) {
		return write, nil
	}
	return nil, fmt.Errorf("probe transactions: %w", Explain(write, "readWrite on database tributary"))
}

// ProbeBoundedFind finds out whether the server honours hint, min and max on
// the _id index of a collection, by reading it: nothing is written. A
// collection without documents, or whose _id index cannot be used, gives
// false, which is always safe.
func ProbeBoundedFind(ctx context.Context, coll *mongo.Collection) (works bool, err error) {
	first, found, err := firstID(ctx, coll, bound{}, bound{}, 0)
	if err != nil || !found {
		return false, ignoreRefusal(err)
	}
	second, several, err := firstID(ctx, coll, bound{}, bound{}, 1)
	if err != nil {
		return false, ignoreRefusal(err)
	}
	tries := []boundedTry{{to: first}, {from: first, want: first}}
	if several {
		tries = append(tries, boundedTry{from: second, want: second},
			boundedTry{from: first, to: second, want: first}, boundedTry{from: first, to: second, skip: 1})
	}
	for _, try := range tries {
		got, found, err := firstID(ctx, coll, try.from, try.to, try.skip)
		if err != nil || found != try.want.set || !got.value.Equal(try.want.value) {
			return false, ignoreRefusal(err)
		}
	}
	return true, nil
}

// bound is an _id, or open where it is not set.
type bound struct {
	value bson.RawValue
	set   bool
}

// boundedTry is a range and what must be found in it after skip documents. A
// document that comes or goes meanwhile makes the probe's answer false at
// worst.
type boundedTry struct {
	from, to, want bound
	skip           int64
}

// codeEmptyRange is how a server refuses a min() that is not before its max():
// an _id of MinKey or MaxKey is the index's own end.
const codeEmptyRange = 51175

// firstID returns the first _id in [from, to) of the _id index after skip ones.
func firstID(ctx context.Context, coll *mongo.Collection, from, to bound, skip int64) (bound, bool, error) {
	opts := options.FindOne().SetHint(bson.D{{Key: "_id", Value: 1}}).SetProjection(bson.D{{Key: "_id", Value: 1}}).SetSkip(skip)
	if from.set {
		opts.SetMin(bson.D{{Key: "_id", Value: from.value}})
	}
	if to.set {
		opts.SetMax(bson.D{{Key: "_id", Value: to.value}})
	}
	raw, err := coll.FindOne(ctx, bson.D{}, opts).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) || hasCode(err, codeEmptyRange) {
		return bound{}, false, nil
	}
	if err != nil {
		return bound{}, false, err
	}
	id, err := raw.LookupErr("_id")
	if err != nil {
		return bound{}, false, fmt.Errorf("probe bounded find: %w", err)
	}
	return bound{value: id, set: true}, true, nil
}

// ignoreRefusal drops an error with which the server refuses the bounds; that
// is an answer, not a fault.
func ignoreRefusal(err error) error {
	if err == nil || Classify(err) == retry.Stop && !hasCode(err, codeUnauthorized) && !errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("probe bounded find: %w", err)
}
