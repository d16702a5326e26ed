// Package oplog turns entries of a MongoDB oplog into change events. It is
// pure: it reads no cursor. A Decoder keeps no state, so entries can be decoded
// in parallel, and its events alias the entry's bytes; Transactions follows which
// entries belong together.
//
// Terms. An entry is a document of local.oplog.rs. An operation is an entry, or
// one element of an applyOps entry. A fragment is an entry that says what a
// transaction does or how it ended, but not both.
//
// # What an entry becomes
//
//   - i: insert. u: update with a delta ($v: 2, $v: 1), or replace where the
//     entry holds the whole image (no $v; or $set with _id, as the embedded
//     engine logs). d: delete. n: nothing. fromMigrate makes no difference.
//     In whole images of updates _id is put first, where the server stores it;
//     it logs them as they were before that.
//   - Writes to DB.system.views: create, modify and drop of the view that the
//     document describes. Creating that collection is nothing; dropping it is
//     the drop of "system.views", which means every view of the database.
//   - c: the DDL events below; dropDatabase, startIndexBuild, abortIndexBuild,
//     dbCheck and what is about a cluster's routing are nothing (a server logs
//     the drops of a database's collections before dropDatabase). Commands that
//     change documents without logging them and the creation of time-series
//     collections are errors where the collection is selected.
//   - applyOps: its operations in order. With lsid and txnNumber it is a
//     transaction (but not with multiOpType 1: then each operation is a
//     retryable write of its own), otherwise a command of a user or a batch of
//     the server's own.
//
// # Transactions over several entries
//
// Fragments are applyOps entries linked by prevOpTime: partial ones (partialTxn)
// and a last one, which commits them, or a prepared one (prepare), which
// commitTransaction commits or abortTransaction ends. They have an effect where
// they are committed, and not otherwise.
//
// Databases admin, config, local and tributary are left out. Anything else
// that is not listed is an EntryError, never skipped.
//
// # Position
//
// Every operation of one entry has the entry's time and term, and an index that
// counts operations, those that become no event too, before any selection. Those
// of a transaction over several entries have the time and term of the entry that
// commits it, and an index that counts over all of it.
//
// # Selection
//
// A data or DDL event is emitted when its namespace is selected, a rename when
// either of its namespaces is. Temporary names (tmp*.renameCollection,
// tmp*.convertToCapped.*) never count as selected. The drop of system.views is
// emitted whatever is selected: it names no view.
//
// # Canonical form of DDL (event.Event.DDL)
//
//	create          {create: coll, <options as logged, idIndex too>}
//	                {create: view, viewOn, pipeline, <collation …>}
//	create_indexes  {createIndexes: coll, indexes: [spec, …]}, specs as
//	                listIndexes shows them: {v, key, name, …}
//	drop_indexes    {dropIndexes: coll, index: name, spec: <old definition>},
//	                spec where logged
//	modify          {collMod: coll, <as logged>}
//	                {collMod: view, viewOn, pipeline, <collation …>}
//	rename          {renameCollection: "db.a", to: "db.b", <stayTemp,
//	                dropTarget (a boolean or the UUID) as logged>}; the event's
//	                namespace is the old one, its UUID that of the collection
//	                that is renamed
//	drop            {drop: coll}
//
// The first element always names the collection without its database (rename:
// with it), the database is the event's.
package oplog
