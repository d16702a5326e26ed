// Package e2e holds what shows Tributary as a whole: the end-to-end test, and
// below it the demo, the benchmarks, the demo's writer and what these share.
package e2e
