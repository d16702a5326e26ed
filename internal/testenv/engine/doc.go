// Package engine starts the servers that tests, the demo and the benchmarks run
// against: a real Kafka broker, real MongoDB replica sets, and the stand-ins of
// the nested module embedded. Every server is a child process on loopback with
// a data directory of its own.
//
// Terms. An engine is a kind of server; a [Process] is one running server. An
// engine that this machine does not have is a [*MissingError], which says what
// to do about it.
//
// The package knows nothing of testing: package testenv adds that. It ends only
// processes that it has started, and on Linux those end with their parent,
// however it ends.
package engine
