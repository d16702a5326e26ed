// Package front stands between MongoDB clients and a FerretDB server and mends
// what would make the stand-in useless for tests of replication. Everything
// else passes through unchanged, byte for byte.
//
// What it mends:
//
//   - Order. FerretDB writes a document and its oplog entry one after the other,
//     and concurrent writers overtake each other in between. The front lets one
//     write command run at a time, so that the oplog's natural order, its ts
//     order and the order of the effects are the same.
//   - Tailing. FerretDB closes a tailable cursor whose first batch is not full
//     and reads the whole oplog every 10 ms while one waits. The front serves
//     tailable cursors on local.oplog.rs itself and asks the server only after a
//     write.
//   - The newest entry. FerretDB reads and sorts the whole oplog for it, several
//     times a second where somebody follows the cluster time. The front asks
//     SQLite.
//   - Look-ups of several documents. FerretDB reads the whole collection for
//     {_id: {$in: [...]}}. The front asks for one after the other.
//   - Index versions. FerretDB lists indexes with v: 2 and refuses to create
//     them so. The front takes it off.
//   - Lookups. FerretDB finds one document by its _id through an index, but reads
//     the whole collection for a list of them. The front looks them up one by
//     one.
//   - Updates of several statements. FerretDB keeps a database connection for
//     every statement of an update command and hangs for good at the hundredth,
//     gives an error the index 0 whatever its statement, and stops at it also
//     where the client asked to go on. The front sends one statement at a time
//     and puts the answers together.
//   - Refused values. FerretDB closes the connection when it meets a BSON type
//     that it does not know, or NaN, which a client takes for a network error. The front
//     answers with an error that names the type and the field.
//
// Terms. A client is what connects to the front; the server is FerretDB. A
// command is the body of one OP_MSG message together with its document
// sequences.
package front
