package config

import (
	"fmt"
	"time"
)

// The bounds of the retry windows, and the lengths up to which they are warned
// of: an election or the restart of a broker takes its time.
const (
	minConnectionWindow   = 10 * time.Minute
	minOtherWindow        = time.Minute
	maxRetryWindow        = 24 * time.Hour
	shortConnectionWindow = 30 * time.Minute
	shortOtherWindow      = 10 * time.Minute
)

func (w *Retry) validate(r *report) {
	window(r, "retry.connection", w.Connection, minConnectionWindow)
	window(r, "retry.other", w.Other, minOtherWindow)
	if w.Other >= w.Connection && !r.faultAt("retry.connection") && !r.faultAt("retry.other") {
		r.add("retry.other", fmt.Sprintf("%s is not below the connection window of %s", w.Other, w.Connection),
			"other errors heal less often than connections: give them less time")
	}
}

func window(r *report, path string, d, least time.Duration) {
	if (d < least || d > maxRetryWindow) && !r.faultAt(path) {
		r.add(path, fmt.Sprintf("%s is out of range", d), fmt.Sprintf("use %s to %s", least, maxRetryWindow))
	}
}

// Warnings lists what is allowed and yet likely not meant, one sentence each.
func (c *Config) Warnings() []string {
	var list []string
	if d := c.Retry.Connection; d <= shortConnectionWindow {
		list = append(list, fmt.Sprintf("retry.connection is %s: a service gives up after an outage of that length, and somebody must start it again", d))
	}
	if d := c.Retry.Other; d < shortOtherWindow {
		list = append(list, fmt.Sprintf("retry.other is %s: an error that passes by itself may take longer than that", d))
	}
	return list
}
