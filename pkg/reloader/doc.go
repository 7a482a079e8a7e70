// Package reloader tells a Prometheus to read its configuration again when that has changed on disk.
//
// It watches one configuration file and any number of directories with rules. When their contents
// change, it writes the configuration with environment variables filled in (if asked to), and triggers
// a reload: over HTTP or with a signal. A reload that fails is tried again until it succeeds.
//
// Contents decide, not events: each look takes a SHA-256 over all files, so that a missed event costs
// one watch interval and an event without a change costs nothing. Mounted ConfigMaps swap a symbolic
// link (..data) beneath the files; the directories along the chain of links are watched for that.
package reloader
