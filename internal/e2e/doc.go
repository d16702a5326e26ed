// Package e2e holds what shows Tributary as a whole: the end-to-end test, and
// below it the demo, its writer and what they share.
package e2e
