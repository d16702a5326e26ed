package workload

import (
	"math/rand/v2"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Config says what to generate.
type Config struct {
	// Client is the source; the caller keeps it.
	Client *mongo.Client
	// Seed decides everything.
	Seed uint64
	// Documents is how many documents the data set has, about.
	Documents int
	// Standin keeps to what the stand-in server does.
	Standin bool
	// DDL lets one writer change definitions while it runs: collections, views,
	// databases and indexes. The stand-in's oplog has no DDL, so Standin
	// overrides it.
	DDL bool
	// Failover says that the source loses its primary meanwhile: an operation
	// that fails for that is given up and counted, whether it took effect or not.
	Failover bool
	// Writers is how many write at one time; 0 means 4.
	Writers int
	// Rate bounds all writers' operations, in operations per second; 0 is as
	// fast as the server takes them.
	Rate int
}

const defaultWriters = 4

func (c Config) writers() int {
	if c.Writers <= 0 {
		return defaultWriters
	}
	return c.Writers
}

// random is the generator of one purpose: two purposes never share one.
func (c Config) random(purpose string, number uint64) *rand.Rand {
	// FNV-1a over the purpose.
	hash := uint64(14695981039346656037)
	for i := range len(purpose) {
		hash = (hash ^ uint64(purpose[i])) * 1099511628211
	}
	return rand.New(rand.NewPCG(c.Seed^hash, number))
}
