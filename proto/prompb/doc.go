// Package prompb is the messages of Prometheus's remote protocols, under a name of their own so that they can
// be linked beside Prometheus's.
package prompb
