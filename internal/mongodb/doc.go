// Package mongodb connects to MongoDB deployments and asks them what they are
// and what they can do: identity, cluster times, the catalogue, probes, and the
// one function that says what to do about an error.
//
// Terms. A deployment is a replica set, a sharded cluster or a standalone
// server. Its id is the replica set id, which a server chooses once and keeps.
// A stand-in is a server that speaks the protocol without being MongoDB; what
// it reports of itself is not believed, so abilities are probed. The catalogue
// is the list of collections with their options and indexes.
package mongodb
