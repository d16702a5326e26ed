// Package event holds the change event, the unit in which Tributary carries a
// source's changes, and the pure rules that belong to it: the namespace, the
// position, the normal form of _id values and the delta with its application
// to a document.
//
// Terms. A change event is our decoded unit; an oplog entry is the server's raw
// document. A namespace is "db.collection". A document key is _id plus, where
// known, the shard key. A position says where in the source's order an event
// stands. A delta is the canonical form of an update.
//
// The package imports nothing but the standard library and bson: it has no
// client, no logger and no metrics, and none of its functions blocks.
package event
