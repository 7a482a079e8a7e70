// Package merge makes one block of several: those of one group, which have the same external labels and resolution.
//
// The inputs are read side by side, series by series. Equal series become one. Chunks that overlap no other are passed
// through byte for byte. Where chunks of one replica overlap, each timestamp is kept once; where replicas overlap,
// package dedup decides, as it does for queries. The output is written once, front to back.
package merge
