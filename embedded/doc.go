// Command embedded runs stand-in engines for a machine that has Go and nothing
// else: a Kafka-compatible broker (franz-go's kfake) and any number of
// MongoDB-compatible servers (FerretDB v1 on SQLite), all in one process, each
// with a data directory of its own. Tributary talks to it over the wire, as it
// does to the real ones.
//
// Terms. A stand-in is one of these engines. The data directory is what --dir
// names; it outlives the process, also one that was killed.
//
// README.md beside this file says what the stand-ins do, what they refuse and
// what they get wrong: tests that need more belong on the real engines.
package main
