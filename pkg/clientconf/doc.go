// Package clientconf is how a client is set up to reach a peer: an HTTP client from its YAML, and the TLS
// and compression of a gRPC client from flags and the endpoint file. Certificates on disk may be replaced
// at any time; connections made from then on use the new ones.
package clientconf
