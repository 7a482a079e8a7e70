// Package proto holds the wire and nothing else: each folder has .proto files and, beside them, the Go code
// that `make proto` generates from them.
//
// The names of packages, services and messages and the numbers of fields are those that Thanos's peers
// speak; a table in testdata lists them all, and a test holds the generated code to it. What is said about
// units and quirks stands in the .proto files, and is repeated in the Go code.
package proto
