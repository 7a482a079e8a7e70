package components

// later are the flags that parse and have no effect yet, by component, with the reason. Setting one to
// anything but its default is warned of at start.
var later = map[string]map[string]string{
	"sidecar": {},
	"store":   {},
	"query":   {},
}

// removed are the flags that Thanos once had and manifests still carry, with what takes their place.
var removed = map[string]map[string]string{
	"store": {
		"experimental.enable-index-cache-postings-compression": "postings are always compressed",
		"debug.advertise-compatibility-label":                  "nothing: no querier needs the label any more",
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
