// Package throttle holds work to limits per second that can be replaced at any
// time.
//
// Terms. A budget is what a limit gives: so many units per second. Work waits
// until its units have come; they come in the order of asking. Units that
// nobody took while there was nothing to do are kept for a fifth of a second,
// so that a pause is not followed by a burst.
//
// The package is not built on golang.org/x/time/rate, whose waiters keep the
// time that they were given when the limit changes, and which refuses what is
// larger than a burst.
package throttle
