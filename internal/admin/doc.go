// Package admin serves what operators ask a service: /metrics for Prometheus,
// /healthz (the process is alive), /readyz (every service in it does its work)
// and /status (their statuses as JSON). It has no authentication and therefore
// listens on a loopback address unless the configuration says otherwise.
package admin
