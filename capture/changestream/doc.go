// Package changestream turns the events of a MongoDB change stream over a whole
// deployment into change events. It is pure: it reads no cursor, and its events
// alias the bytes that they were decoded from. Only Assembler has a state.
//
// Terms. A change is a document that the stream returns. Its token is its _id,
// behind which the stream can be resumed. A fragment is a part of a change that
// was too large for one document.
//
// # What a change becomes
//
//   - insert, replace: the whole image, _id first, where the server stores it.
//   - update: a delta, a diff where the server shows it (rawUpdateDescription),
//     else an ordered delta of the description's paths. What the paths say in
//     two ways at once is an AmbiguousError: only the whole document helps.
//   - delete: the document key.
//   - drop, rename: the DDL events below. dropDatabase is nothing: the drops of
//     its collections come before it.
//   - With expanded events (6.0) also create, createIndexes, dropIndexes and
//     modify, of views too. What concerns the distribution over shards, the
//     beginning of an index build and the end of a transaction is nothing.
//
// Databases admin, config, local and tributary are left out. Anything else is an
// EventError, never skipped; so is invalidate, which a stream over a whole
// deployment does not have.
//
// # Position
//
// The stream gives every change its cluster time; the index inside that time is
// counted by the reader of the stream, changes that become no event too, and
// goes on behind a token. There is no election term.
//
// # Collections' UUIDs
//
// Expanded events name the collection's UUID. Before them only the token holds
// it, in the key string encoding that servers since 4.0.7 write; where it cannot
// be read, the UUID is not known. The token's cluster time stands at its start
// in every version.
//
// # Canonical form of DDL
//
// As package oplog documents it, with two differences: a rename without expanded
// events does not say whether its target existed, and says dropTarget: true,
// since it replaced one if there was one; modify of a collection repeats what
// the command named.
package changestream
