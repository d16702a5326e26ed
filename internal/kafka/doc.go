// Package kafka connects to the brokers: a client with the product's defaults,
// the creation and the check of a pipeline's topics, and the one function that
// says what to do about an error.
//
// Terms. A seed broker is one that the configuration names; the others are
// learned from it. A wrong setting is a topic's setting under which a promise
// of Tributary would not hold.
package kafka
