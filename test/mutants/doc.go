// Package mutants keeps the property tests honest: its table lists small faults (mutants) of the code, each with the
// test that must fail when the fault is in. `make mutants` puts them in one after the other, without touching the
// tree, and fails when a test doesn't see its mutant. `go test` checks that the table still fits the code.
package mutants
