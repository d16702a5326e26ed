// Package precheck looks, once and before a service starts, at everything that
// the configuration names: can it be reached, is it what it must be, may the
// user do what is needed. A service retries for hours; a wrong password or a
// wrong port should not take that long to be told. Every error is one line with
// a remedy; nothing here retries.
package precheck
