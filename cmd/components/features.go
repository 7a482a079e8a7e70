package components

import (
	"strings"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/prometheus/promql/parser"
)

// features are the names that --enable-feature takes, each with what turns it on: switches of Prometheus's parser,
// which hold for the whole process. nil is always on.
var features = map[string]func(){
	"promql-experimental-functions":   func() { parser.EnableExperimentalFunctions = true },
	"promql-extended-range-selectors": func() { parser.EnableExtendedRangeSelectors = true },
	"promql-at-modifier":              nil,
	"promql-negative-offset":          nil,
}

// enableFeatures turns on what was asked for. Unknown names are warned of: old manifests may have them.
func (c *queryFlags) enableFeatures(logger log.Logger) { turnOnFeatures(c.features, logger) }

func turnOnFeatures(lists []string, logger log.Logger) {
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.TrimSpace(name)
			on, known := features[name]
			switch {
			case name == "":
			case !known:
				_ = level.Warn(logger).Log("msg", "this feature is not known", "flag", "--enable-feature", "feature", name)
			case on != nil:
				on()
				_ = level.Info(logger).Log("msg", "feature turned on", "feature", name)
			}
		}
	}
}
