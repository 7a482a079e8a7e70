// Package federate asks every peer that has rules, targets, metric metadata, exemplars or TSDB statistics,
// and makes one answer of theirs.
//
// It has three layers: a fan-out that knows nothing of what it carries (ask.go), pure merges that replicas
// fall together in (merge….go), and the two faces, gRPC for queriers above and JSON for the HTTP API.
//
// Over gRPC the peers' frames are handed on as they are, but for those that the request filters out: which
// labels tell replicas apart is for the last querier to say. Over HTTP they are merged. A merge gives the
// same answer in whatever order the peers' answers come: where two differ, what wins is decided by their
// contents alone.
package federate
