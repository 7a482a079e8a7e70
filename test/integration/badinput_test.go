package integration

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// A request that makes no sense is refused with status 400, the type bad_data and words about what is
// wrong; by GET and by POST alike.
func TestBadRequests(t *testing.T) {
	query := fleet.StartQuery(t, nil)
	form := func(pairs ...string) url.Values {
		v := url.Values{}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	over := func(pairs ...string) url.Values {
		v := form("query", "up", "start", "1000", "end", "2000", "step", "10")
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	for name, c := range map[string]struct {
		path   string
		params url.Values
		words  string
	}{
		"no query":              {"/api/v1/query", form(), ""},
		"broken query":          {"/api/v1/query", form("query", "up{"), "parse"},
		"broken matcher":        {"/api/v1/query", form("query", `up{a=~"("}`), "parse"},
		"broken time":           {"/api/v1/query", form("query", "up", "time", "soon"), "soon"},
		"broken timeout":        {"/api/v1/query", form("query", "up", "timeout", "soon"), "soon"},
		"broken dedup":          {"/api/v1/query", form("query", "up", "dedup", "maybe"), "dedup"},
		"broken partial":        {"/api/v1/query", form("query", "up", "partial_response", "maybe"), "partial_response"},
		"unknown engine":        {"/api/v1/query", form("query", "up", "engine", "steam"), "engine"},
		"broken store match":    {"/api/v1/query", form("query", "up", "storeMatch[]", "{"), "storeMatch"},
		"negative resolution":   {"/api/v1/query", form("query", "up", "max_source_resolution", "-5m"), "max_source_resolution"},
		"end before start":      {"/api/v1/query_range", over("end", "999"), "end"},
		"no step's length":      {"/api/v1/query_range", over("step", "0"), "step"},
		"step backwards":        {"/api/v1/query_range", over("step", "-1"), "step"},
		"step of nonsense":      {"/api/v1/query_range", over("step", "big"), "big"},
		"too many points":       {"/api/v1/query_range", over("end", "1000000", "step", "1"), "11,000|11000"},
		"range vector in range": {"/api/v1/query_range", over("query", "up[5m]"), ""},
		"series without match":  {"/api/v1/series", form(), "match[]"},
		"series, broken match":  {"/api/v1/series", form("match[]", "{a="), ""},
		"series, no matchers":   {"/api/v1/series", form("match[]", "{}"), ""},
		"series, time":          {"/api/v1/series", form("match[]", "up", "start", "x"), "x"},
		"series, order":         {"/api/v1/series", form("match[]", "up", "start", "2", "end", "1"), "end"},
		"series, limit":         {"/api/v1/series", form("match[]", "up", "limit", "-1"), "limit"},
		"labels, broken match":  {"/api/v1/labels", form("match[]", "}"), ""},
		"labels, order":         {"/api/v1/labels", form("start", "2", "end", "1"), "end"},
	} {
		t.Run(name, func(t *testing.T) {
			_, posted := answer.Call(t.Context(), query.URL, c.path, c.params, new(any))
			refused(t, posted, c.words)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, query.URL+c.path+"?"+c.params.Encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, got := answer.Do(req, new(any))
			refused(t, got, c.words)
			if posted != nil && got != nil && posted.Error() != got.Error() {
				t.Errorf("by POST %q, by GET %q", posted, got)
			}
		})
	}
	if status, _ := fleet.Get(t.Context(), query.URL+"/api/v1/nothing"); status != http.StatusNotFound {
		t.Errorf("an unknown path answers %d", status)
	}
}

// refused checks a refusal; words are alternatives of what it must contain.
func refused(t *testing.T, err error, words string) {
	t.Helper()
	var no *answer.Error
	if !errors.As(err, &no) {
		t.Errorf("want a refusal, got %v", err)
		return
	}
	if no.Status != http.StatusBadRequest || no.Type != "bad_data" || no.Message == "" {
		t.Errorf("refused with %v", no)
	}
	for word := range strings.SplitSeq(words, "|") {
		if strings.Contains(no.Message, word) {
			return
		}
	}
	t.Errorf("%q does not speak of %s", no.Message, words)
}

// What is broken in a bucket is set aside, counted, logged and listed; the rest is served, with a warning that names the
// blocks that were ones, and their time.
func TestBrokenBlocksInTheBucket(t *testing.T) {
	p, ids := prometheusOf(t, "a", dataset.A)
	p.Launch(t)
	bucket := t.TempDir()
	side := fleet.StartSidecar(t, p, bucket)
	fleet.Eventually(t, "all blocks are uploaded", uploadWait, func() error { return inBucket(bucket, ids) })
	asked := answer.At(`state`, dataset.Start.Add(time.Hour))
	want := ask(t, p.URL, asked)
	side.Stop(t)
	p.Stop(t)

	const malformed, half, unreadable, future = "01HBRKENMETA00000000000000", "01HHAF00000000000000000000", "01HNTREADABE00000000000000", "01HVERS00N0000000000000000"
	meta, err := os.ReadFile(filepath.Join(bucket, ids[0].String(), "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte) {
		t.Helper()
		file := filepath.Join(bucket, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(malformed+"/meta.json", []byte(`{"ulid": "01H`))
	write(malformed+"/index", []byte("index"))
	write(half+"/chunks/000001", []byte("chunks"))
	write(half+"/index", []byte("index"))
	write(unreadable+"/meta.json", []byte(strings.ReplaceAll(string(meta), ids[0].String(), unreadable)))
	write(unreadable+"/chunks/000001", []byte("these bytes are no chunk"))
	write(unreadable+"/index", []byte("these bytes are no index"))
	anew := regexp.MustCompile(`"version": ?1,`).ReplaceAll(meta, []byte(`"version": 9,`))
	write(future+"/meta.json", []byte(strings.ReplaceAll(string(anew), ids[0].String(), future)))
	write(future+"/index", []byte("of a format that is to come"))
	write("notes.txt", []byte("not a block"))

	store := fleet.StartStore(t, bucket)
	query := fleet.StartQuery(t, []*fleet.Component{store})
	waitStores(t, query, 1)
	got, err := answer.Ask(t.Context(), query.URL, asked)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, question{expr: `state`}, asked, want, got.Without(external("a")))

	_, listed := fleet.Get(t.Context(), store.URL+"/api/v1/blocks?view=loaded")
	var m struct{ MinTime, MaxTime int64 }
	if err := json.Unmarshal(meta, &m); err != nil {
		t.Fatal(err)
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05") }
	for id, cause := range map[string]string{unreadable: "corrupt", future: "version is 9"} {
		if i := slices.IndexFunc(got.Warnings, func(w string) bool { return strings.Contains(w, "block "+id) }); i < 0 {
			t.Errorf("no warning names %s: %q", id, got.Warnings)
		} else if w := got.Warnings[i]; !strings.Contains(w, at(m.MinTime)) || !strings.Contains(w, at(m.MaxTime)) || !strings.Contains(w, cause) {
			t.Errorf("warning %q", w)
		}
	}
	var blocks struct {
		Data struct {
			SetAside []struct{ ULID, Cause string }
		}
	}
	if err := json.Unmarshal([]byte(listed), &blocks); err != nil {
		t.Fatal(err, listed)
	}
	for id, cause := range map[string]string{malformed: "decode JSON", half: "meta.json", unreadable: "corrupt", future: "version is 9"} {
		if !slices.ContainsFunc(blocks.Data.SetAside, func(b struct{ ULID, Cause string }) bool { return b.ULID == id && strings.Contains(b.Cause, cause) }) {
			t.Errorf("%s is not listed as set aside: %+v", id, blocks.Data.SetAside)
		}
	}

	for state, want := range map[string]float64{"corrupted-meta-json": 2, "no-meta-json": 1} {
		if n, ok := store.Metric(t, "thanos_blocks_meta_synced", `state="`+state+`"`); n != want || !ok {
			t.Errorf("thanos_blocks_meta_synced of %s is %v (%v), want %v", state, n, ok, want)
		}
	}
	if n, _ := store.Metric(t, "thanos_bucket_store_block_load_failures_total"); n < 1 {
		t.Errorf("thanos_bucket_store_block_load_failures_total is %v, want 1 or more", n)
	}
	for _, id := range []string{malformed, half, unreadable, future} {
		if !strings.Contains(store.Log(), id) {
			t.Errorf("the log of the store does not name %s", id)
		}
	}
}

// A start that can't succeed ends at once, with exit code 1 and a last line that says what to do.
func TestBadStarts(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.yml")
	if err := os.WriteFile(broken, []byte("type: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	file := fleet.BucketConfig(t, broken) // Its directory is a file.
	nobody := fleet.StartPrometheus(t, fleet.PrometheusConfig{Name: "prometheus without external labels"})

	for name, c := range map[string]struct {
		component string
		flags     []string
		words     string
	}{
		"unknown flag":       {"query", []string{"--no-such-flag"}, "no-such-flag"},
		"unreadable config":  {"store", []string{"--data-dir=" + t.TempDir(), "--objstore.config-file=/no/such/file.yml"}, "/no/such/file.yml"},
		"malformed config":   {"store", []string{"--data-dir=" + t.TempDir(), "--objstore.config-file=" + broken}, "yaml"},
		"unknown provider":   {"store", []string{"--data-dir=" + t.TempDir(), "--objstore.config=type: TAPE"}, "TAPE"},
		"store, no bucket":   {"store", []string{"--data-dir=" + t.TempDir()}, "objstore.config"},
		"refusing bucket":    {"store", []string{"--data-dir=" + t.TempDir(), "--objstore.config-file=" + file}, "broken.yml"},
		"no external labels": {"sidecar", []string{"--prometheus.url=" + nobody.URL, "--tsdb.path=" + nobody.Dir}, "external"},
		"bad duration":       {"query", []string{"--query.timeout=soon"}, "soon"},
		"standalone config":  {"standalone", []string{"--data-dir=" + t.TempDir(), "--config.file=" + broken}, "broken.yml"},
	} {
		t.Run(name, func(t *testing.T) {
			p := fleet.StartComponent(t, c.component, c.flags...)
			if code := p.WaitExit(t, time.Minute); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			lines := strings.Split(strings.TrimSpace(p.Log()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, c.words) {
				t.Errorf("the last line does not speak of %s: %s", c.words, last)
			}
		})
	}
}
