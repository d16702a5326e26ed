// Package verify tells whether a destination holds what its source holds. It
// compares a quiesced pair through the destination's rules: every document as
// raw bytes, every collection's options and indexes, every view.
//
// Terms. A pair is a source collection and the destination collection that the
// rules make of it. A side is one of its two ends. A range is a part of a
// pair's _id index. A difference has a kind; the kind deferred is none that
// counts: it names an index whose unique or expiring property waits for the
// operator.
//
// Verify first waits until the destination has passed the source's present
// cluster time. It tells nothing, rather than something wrong, when that takes
// too long or when either side was written to meanwhile. It reads with majority
// read concern, writes nothing, and holds a bounded number of bytes.
package verify
