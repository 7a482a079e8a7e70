// Package downsample makes blocks of 5 minutes from raw ones, and of 1 hour from those of 5 minutes.
//
// Time is cut into windows; of each, a series keeps how many samples there were, their sum, least and greatest, and the
// running total of a counter. A reader of the result can no longer tell one sample from the next, but a year of it is a
// hundredth of the bytes.
//
// The result is Thanos's, byte for byte where that is defined: package aggr has the format of the chunks.
package downsample
