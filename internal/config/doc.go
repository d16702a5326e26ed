// Package config reads the file that describes a pipeline: one YAML document,
// decoded strictly, with defaults, with ${NAME} taken from the environment and
// file:PATH from files, and checked as a whole. Every fault is reported at
// once, with its place in the file and a hint.
//
// Terms. A path names a place in the file, as destinations[1].rename. A
// reference is ${NAME} or file:PATH. The environment is read here and nowhere
// else.
package config
