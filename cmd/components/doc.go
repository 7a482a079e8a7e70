// Package components turns command lines into running components: one file per component, each from
// flags to Config to New to Run.
//
// Flags bear the names, types and defaults that users of Thanos know. What a command line means is
// settled before anything runs: contradictions, unreadable files and unset variables end the process
// with one line.
package components
