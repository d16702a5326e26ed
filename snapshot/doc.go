// Package snapshot is the service that puts the full load of a source on a
// pipeline's snapshot topic, as raw documents in batches.
//
// Terms. A run is one full load: its manifest says which collections it holds
// and from where on the change topic their changes are needed. A chunk is a
// range of one collection's _id index and the unit of work; a sub-range is what
// one Kafka transaction carries of chunks, together with how far each of them
// has come. W is the watermark that a run starts from: every read is majority
// committed and at or after W. R is the source's time after the last read.
//
// Any number of processes share a run. The partitions of the chunks topic are
// dealt out by a consumer group, and whoever owns a partition works on the
// chunks in it, one after another. The owner of partition 0 is the coordinator:
// it also begins the run and ends it.
//
// The group only chooses. What makes two owners harmless is the partition's
// transactional id: an owner first obtains the producer id, which ends every
// transaction of a former owner and shuts it out, and only then reads what is
// committed. So no sub-range is committed twice, and only one coordinator can
// begin or end a run.
//
// The life of a run:
//
//  1. The coordinator looks for a watermark W that stands in every partition of
//     the change topic. The offsets of its records become the run's starting
//     offsets: all that is later than W stands behind them.
//  2. It lists collections, cuts them into chunks and commits manifest and
//     chunks in one transaction. No document is read before that.
//  3. Owners read chunks and commit batches with progress. After a crash the
//     next owner goes on behind the last committed document.
//  4. When every chunk is done the coordinator notes R and follows the change
//     topic until a watermark has passed it. A rename between W and R could
//     have split a collection between two names: a reload of it is asked for,
//     and awaited. Then the run's end goes to every partition of the snapshot
//     topic in the same transaction as the completed manifest.
//
// A collection that is dropped meanwhile just ends: the drop is in the stream.
package snapshot
