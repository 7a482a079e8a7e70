package components

// later are the flags that parse and have no effect yet, by component, with the reason. Setting one to
// anything but its default is warned of at start.
var later = map[string]map[string]string{
	"query": {
		"query.mode":            "every query is evaluated here",
		"query.partition-label": "every query is evaluated here",
		"query.distributed-with-overlapping-interval": "every query is evaluated here",
		"grpc.proxy-strategy":                         "answers are pulled as they are needed, within gRPC's flow control",
		"query.lazy-retrieval-max-buffered-responses": "answers are pulled as they are needed, within gRPC's flow control",
		"inject-test-addresses":                       "it is for Thanos's own tests",
		"alert.query-url":                             "there is no page yet",
		"web.prefix-header":                           "there is no page yet",
	},
	"compact": {
		"web.prefix-header": "there is no page yet",
	},
	"tools bucket web": {
		"web.prefix-header": "there is no page yet",
	},
	"sidecar": {},
	"store": {
		"web.prefix-header": "there is no page yet",
	},
}

// removed are the flags that Thanos once had and manifests still carry, with what takes their place.
var removed = map[string]map[string]string{
	"store": {
		"experimental.enable-index-cache-postings-compression": "postings are always compressed",
		"debug.advertise-compatibility-label":                  "nothing: no querier needs the label any more",
	},
	"query-frontend": {
		"alert.query-url": "nothing: the page of the querier has it",
	},
	"query": {
		"store":                "--endpoint, as which it is taken",
		"rule":                 "--endpoint, as which it is taken",
		"metadata":             "--endpoint, as which it is taken",
		"exemplar":             "--endpoint, as which it is taken",
		"target":               "--endpoint, as which it is taken",
		"store-strict":         "--endpoint-strict, as which it is taken",
		"log.request.decision": "--request.logging-config",
	},
}
