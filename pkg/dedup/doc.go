// Package dedup merges what several replicas recorded of one series into one stream of samples. It is
// pure: it knows no clock, disk, logger or registry.
//
// Two Prometheus servers that scrape the same target see the same counter at different moments. Taking
// a sample from one and the next from the other gives intervals that nobody scraped with, and where the
// two disagree by a little, falls that never happened, which rate() reads as restarts. So the merged
// stream is one replica's own samples for as long as that replica delivers:
//
//  1. The scrape interval I is learned from the timestamps: the second smallest of the last distances
//     between neighbours in one replica, which holes (longer) and a single odd sample (shorter) leave alone.
//  2. The stream stays on one replica while its next sample comes within 1.5 I of the last.
//  3. When it is later than that, or stale, the other replicas are asked for their first sample at least
//     I/2 after the last one; the earliest answer wins and its replica becomes the one to stay on. There
//     is no other reason to change, so nothing comes back just because it could.
//  4. Values pass as they were scraped. When the reader says that the series is a counter, a sample of
//     another replica that is lower than the last one, though that replica itself did not fall, is
//     skipped if it lies within 1.5 I: a scrape may read its value as late as its timeout, which is at most
//     an interval, so such a sample may really be older. Later ones can't be, and their fall is true.
//  5. Replicas with the same timestamps and values are copies (replicated receivers): they are walked
//     together and the result is the union of their samples. Where copies disagree, the greater one goes on.
//  6. A stale marker counts once, and only when no replica has a sample within 1.5 I after it that does not have
//     the same marker: copies of a series that goes and is back at the next scrape agree that it was gone.
//  7. The stream begins with the replica that scrapes first in the interval, counted from the epoch, among
//     those that begin within 1.5 I of the earliest. So it is the same replica wherever a reader begins.
//
// Nothing in this depends on the order in which the replicas are given.
package dedup
