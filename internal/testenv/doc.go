// Package testenv gives tests the servers that they run against, and helpers to
// wait for conditions and to run the tributary binary. Only tests import it.
//
// A package that uses it declares
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// and a test runs on every engine that the machine has:
//
//	func TestCapture(t *testing.T) {
//		testenv.Each(t, func(t *testing.T, e testenv.Pair) {
//			source := e.NewSource(t)
//			…
//		})
//	}
//
// Terms. An engine is a kind of server: "kfake" (in this process) and "kafka"
// (real) for Kafka; "embedded" (FerretDB) and "mongod" (real) for MongoDB. A
// pair is one of each. An engine that is missing skips its subtests and says
// what that leaves untested; TRIBUTARY_REQUIRE=kafka,mongod makes it a failure.
//
// Which pairs: the stand-ins with each other and the real engines with each
// other, so that every engine is used once. Where one real engine is missing,
// the other one is paired with a stand-in. TRIBUTARY_PAIRS=all runs all four.
//
// TRIBUTARY_KEEP=1 keeps the servers' data and logs and says where they are.
//
// Isolation. A kfake cluster is a pair's own. The real broker is shared by the
// tests of a package, which Pair.Pipeline keeps apart. MongoDB deployments are a
// test's own while it runs; real ones are emptied and handed on afterwards,
// since a start takes seconds. Fresh makes one that nobody had before.
package testenv
