// Package serve is the frame of every process: the HTTP and gRPC servers with TLS, the probe that says
// whether the process is healthy and ready, the common metrics, and the orderly end.
//
// The end of a server is always the same: the probe turns not ready, new requests are refused, requests
// in flight have a grace period to finish, and what is left is cut off.
package serve
