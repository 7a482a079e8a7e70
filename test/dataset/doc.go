// Package dataset is the telemetry that tests are fed with: a fixed set of series whose every sample is a
// function of its time.
//
// The same series can be had as TSDB blocks of a fixed day, as two replicas of an HA pair would have
// written them (WriteBlocks), and as a target that is scraped now (StartTarget). As values follow from
// times, a test knows what is right for any sample that it sees, whichever replica it came from.
package dataset
