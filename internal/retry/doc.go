// Package retry owns the bound of every retry: how long an operation may go on
// failing, and how long to wait in between.
//
// Terms. A verdict is what a client's classify function says of an error. A
// window is how long failures may follow one another before the operation is
// given up; it opens with the first failure after a success. An attempt is one
// failure that will be tried again.
package retry
