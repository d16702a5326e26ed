// Package rules holds what a pipeline and its destinations do with a
// namespace: whether it is selected, what it is called in the destination and
// which of its indexes wait until cutover. It is pure.
//
// Terms. A pattern is "db.collection" in which either part may be "*", which
// stands for the whole part. A selection is a list of patterns to include and
// one to exclude; exclusion wins. A target is the namespace in the
// destination. A deferred index is one that the destination builds in a
// weaker form until the operator finalises it.
package rules
