// Package wire translates between the records of package store and the messages of the StoreAPI. It is
// what store/server and store/remote have in common: whatever one of them writes, the other reads.
//
// Requests and label answers go through the generated types. The frames of a Series answer do not, since
// they are the bulk of all bytes that ever move: Outgoing encodes a frame straight from a store.Series
// into the buffer that gRPC sends, and Incoming decodes one straight into a store.Series whose chunks are
// slices of the buffer that gRPC received. On the wire they are thanos.SeriesResponse byte for byte; a
// fuzz test holds both to the generated code.
package wire
