// Package apply is the service that writes a pipeline's full load and its
// changes to one destination.
//
// Terms. A group is a consumer group of one destination; its members are apply
// processes, any number of them. A worker owns one assigned partition of the
// change or the snapshot topic. A batch is a run of records of one partition
// that takes effect together with the partition's offset. A phase is what the
// whole group does: load the snapshot, build the indexes, follow the changes. A
// barrier is a DDL event: all partitions meet there, one of them executes it,
// and only then does any of them go on. Held is what the destination has of a
// document. A target is the destination's namespace of a source's one.
//
// The truth is in the destination's database "tributary": phases (groups),
// offsets and owners of partitions (offsets), DDL in progress and done
// (barriers), what was loaded or created (collections) and indexes that wait
// for the operator (deferred). All of it is written with majority write
// concern. Kafka's group offsets mirror it for lag tools and are never read.
//
// Exactly once, where transactions work: a batch is one MongoDB transaction
// whose first statement moves the partition's offset record from the offset and
// epoch that the worker holds. It matches nothing for a worker that lost its
// partition, since the new owner raised the epoch before anything else; so a
// stale worker cannot write, and a batch that was committed is never repeated.
//
// At least once elsewhere: ownership is checked, the batch is written, then the
// offset is moved. What was delivered before a restart is delivered again: up
// to the end that the partition had at the restart, deltas that do not fit are
// left alone, as while catching up.
//
// Locks are held for map access alone; every goroutine belongs to the service's
// errgroup.
package apply
