package apply

import (
	"context"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// rename applies a rename by what the rules make of its two names. Where the
// destination has the collection under a name that it can be renamed from, that
// is what is done. Otherwise the collection is awaited: its old name is dropped,
// so is what the new one replaces, and a reload brings it.
func (x *executor) rename(ctx context.Context) (string, error) {
	to, dropTarget, err := renameOf(x.event)
	if err != nil {
		return "", &ddlError{x.event, err}
	}
	from := x.event.NS
	fromTarget, fromSelected := x.targetOf(from)
	toTarget, toSelected := x.targetOf(to)
	switch {
	case !toSelected:
		outcome, err := x.dropOne(ctx, from, fromTarget)
		return "renamed out of the selection to " + to.String() + ": " + outcome, err
	case !fromSelected:
		return x.arrive(ctx, from, to, toTarget, "a rename brought it into the selection")
	case x.lenient:
		// What was loaded of it may be split between the two names.
		if _, err := x.dropOne(ctx, from, fromTarget); err != nil {
			return "", err
		}
		return x.arrive(ctx, from, to, toTarget, "it was renamed while it was loaded")
	case fromTarget.DB != toTarget.DB:
		if _, err := x.dropOne(ctx, from, fromTarget); err != nil {
			return "", err
		}
		return x.arrive(ctx, from, to, toTarget, "a rename brought it into another database")
	}
	return x.renameHeld(ctx, from, to, fromTarget, toTarget, dropTarget)
}

// arrive awaits a collection under its new name.
func (x *executor) arrive(ctx context.Context, from, to, target event.Namespace, reason string) (string, error) {
	// Requests about what the new name meant before; by the UUID also those that
	// were made under the old one.
	if err := x.storeOf(to).dropRequests(ctx, to, x.event.UUID); err != nil {
		return "", err
	}
	if err := x.await(ctx, to, target, reason); err != nil {
		return "", err
	}
	return "renamed from " + from.String() + " to " + target.String() + ": its reload follows", nil
}

// renameHeld renames inside a database of the destination.
func (x *executor) renameHeld(ctx context.Context, from, to, fromTarget, toTarget event.Namespace, dropTarget bool) (string, error) {
	if awaiting, err := x.awaiting(ctx, from); err != nil {
		return "", err
	} else if awaiting {
		return x.renameAwaited(ctx, from, to, fromTarget, toTarget)
	}
	if awaited, found, err := x.storeOf(to).collection(ctx, to); err != nil {
		return "", err
	} else if found && awaited.Awaiting && awaited.SourceUUID == x.event.UUID.String() {
		return awaitsReload, x.await(ctx, to, toTarget, awaitsReload) // a try before came this far
	}
	held, fromExists, err := lookup(ctx, x.client, fromTarget)
	if err != nil {
		return "", err
	}
	outcome := "renamed to " + toTarget.String()
	done := false
	if !fromExists {
		if done, err = x.renamed(ctx, from, to, toTarget); err != nil {
			return "", err
		}
	}
	switch {
	case fromExists:
		if err := x.intend(ctx, from, toTarget, &held); err != nil {
			return "", err
		}
		err = x.command(ctx, fromTarget, "admin", bson.D{
			{Key: "renameCollection", Value: fromTarget.String()}, {Key: "to", Value: toTarget.String()}, {Key: "dropTarget", Value: dropTarget},
		})
	case done:
		outcome = "is renamed to " + toTarget.String() + " already"
	default:
		if err := x.storeOf(from).dropCollection(ctx, from); err != nil {
			return "", err
		}
		return x.arrive(ctx, from, to, toTarget, "the collection is gone from the destination")
	}
	if hasCode(err, codeRenameOfSharded, codeRenameToSharded, codeRenameRefused) {
		if _, err := x.dropOne(ctx, from, fromTarget); err != nil {
			return "", err
		}
		return x.arrive(ctx, from, to, toTarget, "the destination cannot rename a sharded collection")
	}
	if err != nil {
		return "", err
	}
	return outcome, x.recordRename(ctx, from, to, fromTarget, toTarget)
}

// intend writes down what a rename is about to do, so that a later try can tell
// its outcome from what stood under the new name before; what was recorded of
// indexes there goes with that.
func (x *executor) intend(ctx context.Context, from, toTarget event.Namespace, listed *listedCollection) error {
	record, found, err := x.storeOf(from).collection(ctx, from)
	if err != nil {
		return err
	}
	if found {
		record.Renaming = renamingText(toTarget, listed)
		if err := x.storeOf(from).putCollection(ctx, record); err != nil {
			return err
		}
	}
	return x.store.forgetIndexes(ctx, toTarget, "")
}

func renamingText(toTarget event.Namespace, listed *listedCollection) string {
	return toTarget.String() + " " + uuidText(listed)
}

// renamed reports whether an earlier try has renamed a collection that is not
// there any more under its old name.
func (x *executor) renamed(ctx context.Context, from, to, toTarget event.Namespace) (bool, error) {
	listed, exists, err := lookup(ctx, x.client, toTarget)
	if err != nil || !exists {
		return false, err
	}
	record, found, err := x.storeOf(from).collection(ctx, from)
	if err != nil || found {
		return err == nil && record.Renaming == renamingText(toTarget, &listed), err
	}
	record, found, err = x.storeOf(to).collection(ctx, to)
	return err == nil && found && record.SourceUUID == x.event.UUID.String(), err
}

// renameAwaited renames a collection that the destination does not have yet: its
// reload comes under the new name.
func (x *executor) renameAwaited(ctx context.Context, from, to, fromTarget, toTarget event.Namespace) (string, error) {
	err := x.command(ctx, toTarget, toTarget.DB, bson.D{{Key: "drop", Value: toTarget.Coll}})
	if err != nil && !hasCode(err, codeNamespaceNotFound) {
		return "", err
	}
	if err := x.store.forgetIndexes(ctx, toTarget, ""); err != nil {
		return "", err
	}
	return awaitsReload, x.recordRename(ctx, from, to, fromTarget, toTarget)
}

// recordRename moves the records of a collection. It may be repeated: the old
// record goes last.
func (x *executor) recordRename(ctx context.Context, from, to, fromTarget, toTarget event.Namespace) error {
	held, found, err := x.storeOf(from).collection(ctx, from)
	if err != nil || !found {
		return err
	}
	if err := x.store.moveIndexes(ctx, fromTarget, toTarget); err != nil {
		return err
	}
	store := x.storeOf(to)
	if err := x.storeOf(from).renameRequests(ctx, store, from, to, x.event.UUID); err != nil {
		return err
	}
	held.ID, held.Target, held.Renaming = store.collectionID(to), toTarget.String(), ""
	if err := store.putCollection(ctx, held); err != nil {
		return err
	}
	return x.storeOf(from).dropCollection(ctx, from)
}
