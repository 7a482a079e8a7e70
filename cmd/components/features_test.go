package components

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// Shows that --enable-feature makes experimental PromQL parse, takes lists, accepts what is always on, and warns
// of names that nobody knows.
func TestEnableFeatures(t *testing.T) {
	functions, selectors := parser.EnableExperimentalFunctions, parser.EnableExtendedRangeSelectors
	defer func() {
		parser.EnableExperimentalFunctions, parser.EnableExtendedRangeSelectors = functions, selectors
	}()
	parser.EnableExperimentalFunctions, parser.EnableExtendedRangeSelectors = false, false
	parses := func(expr string) bool { _, err := parser.ParseExpr(expr); return err == nil }
	const function, selector = `sort_by_label(up, "job")`, `rate(x[5m] anchored)`

	var out bytes.Buffer
	(&queryFlags{features: []string{"", "promql-at-modifier,nonsense"}}).enableFeatures(testLogger(t, &out))
	if parses(function) || parses(selector) || strings.Count(out.String(), "level=warn") != 1 || !strings.Contains(out.String(), "feature=nonsense") {
		t.Errorf("nothing was asked for: %v, %v, logged %q", parses(function), parses(selector), out.String())
	}
	(&queryFlags{features: []string{"promql-experimental-functions"}}).enableFeatures(testLogger(t, &out))
	if !parses(function) || parses(selector) {
		t.Errorf("functions were asked for: %v, %v", parses(function), parses(selector))
	}
	(&queryFlags{features: []string{"promql-negative-offset, promql-extended-range-selectors"}}).enableFeatures(testLogger(t, &out))
	if !parses(function) || !parses(selector) {
		t.Errorf("both were asked for: %v, %v", parses(function), parses(selector))
	}
}
