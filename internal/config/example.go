package config

import _ "embed" // for example.yml

//go:embed example.yml
var example string

// Example returns a commented configuration with every key, which is itself
// accepted by Load when the environment has what it refers to.
func Example() string { return example }
