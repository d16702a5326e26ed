// Package progress reckons how far a load has come: a Ledger adds up what the
// state topic says of a run's chunks, a Meter turns that into rates and into
// the time that is left. Nothing here reads a clock.
//
// A chunk's total is its share of the collection's estimate until it is done,
// then what it really held; one that outgrows its share counts for as much as it
// has. So the done part never exceeds the total and never becomes a smaller
// share of it, and since the chunks' progress is durable, no restart takes it
// back.
package progress
