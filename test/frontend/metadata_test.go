package frontend

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list is an answer about labels or series, in any order.
type list struct {
	Code     int
	Elements []string
	Missing  bool
}

func askList(t *testing.T, where string, form url.Values) (l list) {
	t.Helper()
	resp, err := http.Get(where + "?" + form.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		Data     []any
		Warnings []string
		Infos    []string
	}
	if err := json.Unmarshal(b, &body); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	l.Code = resp.StatusCode
	for _, e := range body.Data {
		text, err := json.Marshal(e) // keys sorted
		if err != nil {
			t.Fatal(err)
		}
		l.Elements = append(l.Elements, string(text))
	}
	slices.Sort(l.Elements)
	for _, n := range slices.Concat(body.Warnings, body.Infos) {
		l.Missing = l.Missing || !strings.HasPrefix(n, "PromQL ")
	}
	return l
}

// checkMetadata asks for labels, values or series, and compares. While stores are away, the frontend may know more than
// the querier, and less than all only if it says so.
func (w *world) checkMetadata(t *testing.T, rnd *rand.Rand, seed uint64) {
	t.Helper()
	path := []string{"/api/v1/labels", "/api/v1/series", "/api/v1/label/instance/values", "/api/v1/label/job/values", "/api/v1/label/cluster/values"}[rnd.IntN(5)]
	end := w.now.Load() - rnd.Int64N(3)*rnd.Int64N(length/2)
	form := url.Values{"start": {seconds(end - rnd.Int64N(4*3600_000))}, "end": {seconds(end)}}
	if rnd.IntN(3) == 0 { // whole parts
		form = url.Values{"start": {seconds((end - 3*3600_000) / 3600_000 * 3600_000)}, "end": {seconds(end/3600_000*3600_000 - 1)}}
	}
	if strings.HasSuffix(path, "series") || rnd.IntN(2) == 0 {
		form["match[]"] = [][]string{{`requests_total`}, {`{job="api"}`, `temperature`}, {`errors_total`}}[rnd.IntN(3)]
	}
	if rnd.IntN(6) == 0 {
		form.Set("partial_response", "false")
	}
	if rnd.IntN(8) == 0 {
		form.Set("dedup", "false")
	}
	if rnd.IntN(10) == 0 {
		form.Set("end", "1")
	}
	want, got := askList(t, w.querier.URL+path, form), askList(t, w.frontend.URL+path, form)
	d := cmp.Diff(want, got)
	if d != "" && w.missing() {
		for _, c := range w.clusters {
			if c.isAway() {
				c.leave(false)
				defer c.leave(true)
			}
		}
		whole := askList(t, w.querier.URL+path, form)
		switch {
		case !got.Missing:
			d = cmp.Diff(whole, got)
		case got.Code == http.StatusOK && want.Missing && within(want.Elements, got.Elements) && within(got.Elements, whole.Elements):
			d = ""
		}
	}
	if d != "" {
		t.Fatalf("seed %d: %s %v\nquerier against frontend: %s", seed, path, form, d)
	}
}

// within tells whether all elements of a are in b.
func within(a, b []string) bool {
	for _, e := range a {
		if !slices.Contains(b, e) {
			return false
		}
	}
	return true
}
