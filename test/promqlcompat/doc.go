// Package promqlcompat holds the answers of Koios to those of Prometheus: Prometheus's own tests of PromQL
// and generated queries, by every road that a sample can take to a querier and with both engines.
//
// TestPrometheusFiles runs the files of package promqltest, TestGenerated a fixed slice of the queries that
// promqlsmith makes up. The long run of these is `make campaign-promql`. What is known to differ is in
// exclusions_test.go, each with its reason; what is listed there and does not differ any more fails too.
package promqlcompat
