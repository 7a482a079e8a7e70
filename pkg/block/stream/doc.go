// Package stream reads and writes TSDB blocks series by series, within a fixed amount of memory.
//
// A block is read in the order in which it lies in its files: symbols, then series, then the chunks of each series.
// Postings are never looked at, and nothing is mapped into memory, so what a block costs does not grow with its
// size. Whatever is read is checked against its checksum and against the order that the format promises; what is wrong is
// a *CorruptError that says which part of which file.
//
// Inside, a label is a pair of ordinals of the block's sorted symbol table, and a label set is a row of such
// pairs. Ordinals sort as their strings do, so label sets are compared and copied from block to block
// without touching a string.
//
// The Writer makes index version 2 and chunk segments, byte for byte as Prometheus's own writers would. Postings are
// sorted outside of memory.
package stream
