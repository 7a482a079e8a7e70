// Package shipper uploads the finished blocks of a local TSDB to a bucket.
//
// Each round looks at the blocks of one directory, oldest first, and uploads those that the bucket
// lacks: hard links to a block's files and a meta.json with external labels are put aside, so that
// Prometheus may delete the block meanwhile, and uploaded with meta.json last. What is known to be
// uploaded is written to the shipper file, which Prometheus reads too when it delays compaction
// (--storage.tsdb.delay-compact-file.path).
//
// # What holds at all times
//
//  1. A block's meta.json is in the bucket only if all its other objects are.
//  2. The shipper file names a block only if its meta.json was seen in the bucket, or written to it.
//  3. Nothing in the TSDB's directory changes but the shipper file and <dir>/thanos/upload.
//
// So a round may end anywhere, by an error or by the death of the process: the next one uploads again
// what has no readable meta.json in the bucket, and asks the bucket about what the shipper file lacks.
package shipper
