// Package bucketops is what an operator does to a bucket by hand: look at it, find what is wrong with it, mend it, copy
// it, and delete from it. One file per verb.
//
// Three rules hold for all of them. One bad block never stops the rest: it is named, the others are worked on, and the
// error at the end says how many failed. What is deleted can be shown beforehand (DryRun). And whatever replaces a block
// is in the bucket, whole and read back, before that block goes.
package bucketops
