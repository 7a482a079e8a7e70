package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/koios-metrics/koios/test/answer"
)

// call sends a form that must be answered.
func call(t *testing.T, base, path string, params url.Values, data any) {
	t.Helper()
	if _, err := answer.Call(t.Context(), base, path, params, data); err != nil {
		t.Fatalf("%s %v: %v", path, params, err)
	}
}

// get asks for a page that must be answered.
func get(t *testing.T, url string, data any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := answer.Do(req, data); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}

func encode(params url.Values) string { return params.Encode() }

// text writes label sets in one order.
func text(lss []map[string]string) []string {
	ss := make([]string, len(lss))
	for i, ls := range lss {
		ss[i] = fmt.Sprint(ls) // Maps are printed sorted by key.
	}
	slices.Sort(ss)
	return ss
}
