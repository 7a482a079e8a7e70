// Package integration runs Koios as its users do: real Prometheus servers that scrape, sidecars beside them,
// a bucket on disk, a store and a querier, each a process of its own on free ports.
//
// The tests need Prometheus (`make tools` builds it) and build koios from the tree. What can't be had fails
// the tests. See the packages fleet, dataset and answer beside this one for the parts they are made of.
package integration
