// Package column evaluates PromQL's range functions and aggregations over arrays.
//
// A column is what one series contributes to a query: a value for each step, or none. An Evaluator turns
// the samples of a series, in two arrays, into its column; Groups adds columns up. Both give what
// Prometheus's engine gives, to the last bit where columns are added in the order of their series: the
// arithmetic is done in the same order with the same compensated sums. Only floats are known here;
// whoever meets a native histogram must go another way.
//
// The package is pure: no clock, disk, logger or registry. Its types belong to one goroutine each.
package column
