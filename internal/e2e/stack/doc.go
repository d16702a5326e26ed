// Package stack runs what the demo and the end-to-end tests share: servers of
// every kind that the machine has, a pipeline's configuration file, and the
// tributary program as one child process for each service.
//
// Terms. Servers are one broker, one source and its destinations, real or
// stand-ins. A fleet is the services of one pipeline; a member is one of them,
// which may be killed and started again.
package stack
