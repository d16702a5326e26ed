// Package capture follows a source's oplog or change stream and puts its changes
// on the pipeline's change topic, each exactly once and in the source's order per
// document.
//
// Terms. An entry is a raw document of the oplog. A batch is a run of entries
// that travels through the stages together; its memory is counted from the
// moment it was read until the broker has acknowledged its records. A tenure is
// the time in which this process owns the one partition of the pipeline's
// capture group; a life is one attempt inside a tenure, from fencing to its
// first error.
//
// Stages, each bounded by Config.QueueBytes as a whole:
//
//	read (1) → decode, select, route, encode (Workers, order kept) → produce (1)
//
// Exactly once. A life begins by obtaining the producer id of the pipeline's
// transactional id, which ends what any other instance had open and keeps it
// from writing again. Then it reads the last committed position and resumes
// behind it. Every Kafka transaction holds whole oplog entries, or fragments of
// a transaction of the source, and the position after them, so that a transaction either counts with its position or not at
// all. Any error in producing ends the life; the next one starts from what was
// committed. The group only chooses who tries; the fence is the guarantee.
//
// Order. Events of one document have one key and so one partition. DDL events
// and watermarks go to every partition, all copies in one transaction. A
// watermark W says that nothing at or before W follows in its partition.
//
// Transactions over several entries are handed out where they commit, fragment
// by fragment; until then they hold back where reading would resume. The
// fragments of small ones are kept, those of others read again.
//
// Memory is bounded by QueueBytes, half as much in buffers kept for reuse and a
// quarter for fragments of open transactions, plus two server replies (16 MiB of
// entries at most) plus the Kafka client's own buffers of compressed batches. A
// batch that alone is beyond QueueBytes, as a large entry may be, passes alone.
package capture
