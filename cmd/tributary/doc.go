// Command tributary keeps MongoDB deployments in step with each other through
// Kafka. One binary, one file for each subcommand: it reads the configuration,
// checks everything that it names, wires a service and turns its end into an
// exit code.
//
// Exit codes: 0 success, 1 failed or different, 2 wrong usage or configuration,
// or could not tell. See exitCode.
package main
