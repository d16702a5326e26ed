// Package workload makes a shop-like data set and keeps writing to it, for the
// demo and the end-to-end tests.
//
// Everything follows from a seed: the documents of the data set from the seed
// and their number, what a writer does from the seed and the writer. Only the
// order in which several writers' operations meet the server does not.
//
// Terms. A kind is a collection's recipe: what its documents look like, its
// indexes, and the shapes of updates that it gets. A number counts the documents
// of a kind from 0; the _id and the first image follow from it. A writer owns
// the numbers that are congruent to its own modulo the number of writers, so
// that one document is written by one writer at a time.
//
// The stand-in server accepts fewer types, operators and indexes: Config.Standin
// keeps to what it does.
package workload
