// Package dedup merges what several replicas recorded of one series into one stream of samples. It is
// pure: it knows no clock, disk, logger or registry.
//
// Two Prometheus servers that scrape the same target see the same counter at different moments. Taking
// a sample from one and the next from the other gives intervals that nobody scraped with, and where the
// two disagree by a little, falls that never happened, which rate() reads as restarts. So the merged
// stream is the first replica's own samples wherever it has any, and the others' only in its holes.
//
// What counts as a hole is learned from the timestamps around it, and from nothing else: not from what was read
// before, from the times asked for or from how chunks are cut. DESIGN.md says how, and numbers the invariants
// that the code cites. A Merger reads the others only where it has to; Merge does the same for iterators.
package dedup
