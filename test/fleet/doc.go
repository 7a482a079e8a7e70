// Package fleet starts real programs for tests: Prometheus and Koios's own, each a process of its own on
// free ports of this machine.
//
// A Process belongs to the test that started it. It is stopped when the test ends, and when the test has
// failed, the last lines of what it wrote are printed. A program that can't be had fails the test with the
// command that builds it; nothing is ever skipped.
package fleet
