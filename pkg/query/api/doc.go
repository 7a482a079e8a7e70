// Package api serves PromQL over HTTP as Prometheus and Thanos do: the same paths, parameters and JSON.
//
// A handler reads its parameters (params.go), asks the querier and returns an answer; respond.go wraps
// it into the envelope {"status":…,"data":…} with the HTTP status and caching header that go with it.
// Query results are written by an encoder of our own (encode.go), everything else by encoding/json.
package api
