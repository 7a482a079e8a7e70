//go:build compat

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

// A store of Koios serves with the index headers that Thanos's left in its data directory, and the other way round, and
// neither fetches them again: the files stay what they were, and a querier gets the same answers. The headers themselves
// are the same, byte for byte.
func TestIndexHeadersBesideThanos(t *testing.T) {
	const from = int64(1_700_006_400_000)
	bucket := t.TempDir()
	for i := range int64(3) {
		if _, err := bulk.Write(t.Context(), bucket, bulk.Spec{
			From: from + i*7_200_000, Interval: 15_000, Samples: 479, Series: bulk.Counters("requests_total", 300), External: map[string]string{"replica": "a"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	headers := func(data string) map[string]string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(data, "*", indexheader.Filename))
		if err != nil || len(files) != 3 {
			t.Fatalf("%d index headers in %s, want 3 (%v)", len(files), data, err)
		}
		held := map[string]string{}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			held[filepath.Base(filepath.Dir(f))] = string(b)
		}
		return held
	}
	// marked sets the times of the files back, so that one that was written again shows.
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	marked := func(data string) {
		t.Helper()
		for id := range headers(data) {
			if err := os.Chtimes(filepath.Join(data, id, indexheader.Filename), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	serve := func(start maker, data string) string {
		t.Helper()
		s := start(t, "store", "--data-dir="+data, "--objstore.config-file="+fleet.BucketConfig(t, bucket)).Ready(t)
		defer s.Stop(t)
		q := fleet.StartQuery(t, []*fleet.Component{s})
		defer q.Stop(t)
		var body string
		fleet.Eventually(t, "the querier knows the store", 30*time.Second, func() error {
			status, text := fleet.Get(t.Context(), fmt.Sprintf("%s/api/v1/query?query=sum+by+(job)(rate(requests_total[5m]))&time=%d&partial_response=false", q.URL, (from+5*3_600_000)/1000))
			if body = text; status != 200 || len(text) < 1000 {
				return fmt.Errorf("%d %s", status, text)
			}
			return nil
		})
		return body
	}
	ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	want := serve(startKoios, ours)
	if got := serve(startThanos, theirs); got != want {
		t.Errorf("answers differ: %s", cmp.Diff(want, got))
	}
	if !cmp.Equal(headers(ours), headers(theirs)) {
		t.Error("the index headers are not the same")
	}
	marked(ours)
	marked(theirs)
	if got := serve(startThanos, ours); got != want {
		t.Errorf("Thanos over our headers: %s", cmp.Diff(want, got))
	}
	if got := serve(startKoios, theirs); got != want {
		t.Errorf("Koios over Thanos's headers: %s", cmp.Diff(want, got))
	}
	for _, data := range []string{ours, theirs} {
		for id := range headers(data) {
			st, err := os.Stat(filepath.Join(data, id, indexheader.Filename))
			if err != nil {
				t.Fatal(err)
			}
			if !st.ModTime().Equal(old) {
				t.Errorf("the index header of %s in %s was written again", id, data)
			}
		}
	}
}
