package verify

import (
	"errors"
	"time"

	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Defaults of Config.
const (
	defaultWait    = time.Minute
	defaultWorkers = 4
	defaultListed  = 100
)

// Config says what to compare and how.
type Config struct {
	// Pipeline and Destination name the pair; Groups are the destination's
	// group names as they stand in its offsets, "<destination>[.<group>]".
	// None means the destination's only group.
	Pipeline    string
	Destination string
	Groups      []string
	// Source and Target are the two deployments. The caller keeps them and
	// disconnects them.
	Source, Target *mongo.Client
	// Rules are the destination's.
	Rules rules.Destination
	// Wait bounds the wait for the destination to pass the source's present
	// cluster time; 0 means one minute.
	Wait time.Duration
	// Workers is how many ranges are compared at one time; 0 means 4.
	Workers int
	// Listed is how many differences of each kind are listed; all are counted.
	// 0 means 100.
	Listed int
	// Progress, where set, is called from several goroutines, a few times a
	// second at most. It must not block.
	Progress func(Progress)
}

// Progress says how far a verification has come.
type Progress struct {
	// Phase is "waiting", "counting", "comparing" or "checking".
	Phase string
	// Behind names what is being waited for; empty in other phases.
	Behind string
	// Documents have been read of the source, of Total.
	Documents, Total int64
}

// validate checks what a caller may get wrong and fills in defaults.
func (c *Config) validate() error {
	var faults []error
	if c.Pipeline == "" || c.Destination == "" {
		faults = append(faults, errors.New("verify: pipeline and destination must be named"))
	}
	if c.Source == nil || c.Target == nil {
		faults = append(faults, errors.New("verify: source and target must be connected"))
	}
	if len(c.Groups) == 0 {
		c.Groups = []string{c.Destination}
	}
	if c.Wait <= 0 {
		c.Wait = defaultWait
	}
	if c.Workers <= 0 {
		c.Workers = defaultWorkers
	}
	if c.Listed <= 0 {
		c.Listed = defaultListed
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	return errors.Join(faults...)
}
