// Package compact is the work on a bucket that never ends: merging blocks, downsampling them, and deleting what is no
// longer wanted.
//
// It decides, then acts. Plan is a pure function: the metadata and marks of all blocks, the settings and the time go in,
// a list of small steps comes out, each of which may be repeated. The Compactor looks at the bucket, plans, carries out
// the steps, and does so again. After a crash it starts with a look, as ever; nothing that matters is kept on its disk.
//
// What keeps data safe, whoever else works on the same bucket:
//
//  1. An output gets a fresh id, and its meta.json is uploaded last. Half an output is no block.
//  2. Sources are marked for deletion only after their successor was read back from the bucket, object by object.
//  3. Work that was done twice shows in compaction.sources: a block whose sources are all in another one is garbage. Which
//     of two is the garbage is an order over the blocks themselves, so that no two compactors decide it differently.
//  4. A block past the retention of its resolution stays until a successor exists, when the retention of a coarser
//     resolution asks for one.
//  5. Leases save work and nothing else.
//
// One bad block costs only itself, one bad group only itself: a failure is kept with its cause and the time of the next
// try, and everything else goes on.
package compact
