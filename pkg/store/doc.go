// Package store is the central word of Koios: a Store is anything that can be asked for series.
//
// A bucket, a local TSDB, a Prometheus behind remote read, a peer over gRPC and a fan-out over many of
// them are all Stores, so whoever knows one of them knows them all. The package holds the interface, the
// records that cross it, and the three pieces of order that every implementation needs: matching
// external labels, merging them into stored series (Relabel), and the order of series and chunks.
//
// # The order of series
//
// A Store hands out series sorted by their final labels: stored labels with the external ones merged in
// (external ones win) and the requested replica labels gone. Storage holds series in the order of their
// stored labels, and merging or removing a label changes that order:
//
//	stored           final, with external label r="1"
//	{a="x"}          {a="x", b="y", r="1"}
//	{a="x", b="y"}   {a="x", r="1"}
//
// The insertion of constant labels is undone by a small stack (see Relabel); labels taken away from or
// overwritten on stored series need a sort, which is charged to a Budget.
package store
