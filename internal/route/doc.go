// Package route says where things live in Kafka: the names of a pipeline's
// topics, groups and transactional ids, the key of a change event's record and
// the partition that a key belongs to. It is pure.
package route
