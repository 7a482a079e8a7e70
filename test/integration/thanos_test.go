//go:build compat

package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// startThanos starts a component of the real Thanos that KOIOS_THANOS names, on free ports.
func startThanos(t *testing.T, name string, flags ...string) *fleet.Component {
	t.Helper()
	path := os.Getenv("KOIOS_THANOS")
	if path == "" {
		t.Fatal("name a Thanos program in KOIOS_THANOS: these tests run beside it")
	}
	c := &fleet.Component{HTTP: fleet.FreeAddr(t), GRPC: fleet.FreeAddr(t)}
	c.URL = "http://" + c.HTTP
	c.Process = fleet.Start(t, "thanos "+name, path, append([]string{name, "--http-address=" + c.HTTP, "--grpc-address=" + c.GRPC}, flags...)...)
	return c
}

// maker starts components of one make.
type maker func(t *testing.T, name string, flags ...string) *fleet.Component

func startKoios(t *testing.T, name string, flags ...string) *fleet.Component {
	t.Helper()
	return fleet.StartComponent(t, name, flags...)
}

// leaves starts a sidecar and a store of one make: the sidecar uploads the blocks of a Prometheus, the
// store serves them. The flags are the store's.
func leaves(t *testing.T, start maker, p *fleet.Prometheus, flags ...string) []*fleet.Component {
	t.Helper()
	bucket := t.TempDir()
	conf := "--objstore.config-file=" + fleet.BucketConfig(t, bucket)
	// A shipper file of its own, or the second sidecar takes the blocks of the first for uploaded.
	sidecar := start(t, "sidecar", "--prometheus.url="+p.URL, "--tsdb.path="+p.Dir, conf, "--shipper.meta-file-name="+filepath.Base(filepath.Dir(bucket))+filepath.Base(bucket)+".json").Ready(t)
	fleet.Eventually(t, "the blocks are uploaded", time.Minute, func() error {
		metas, err := filepath.Glob(filepath.Join(bucket, "*", "meta.json"))
		if err != nil || len(metas) < 3 {
			return fmt.Errorf("%d blocks, %v", len(metas), err)
		}
		return nil
	})
	store := start(t, "store", append(flags, "--data-dir="+t.TempDir(), conf)...).Ready(t)
	return []*fleet.Component{sidecar, store}
}

func querier(t *testing.T, start maker, over ...*fleet.Component) *fleet.Component {
	t.Helper()
	flags := []string{"--query.replica-label=replica"}
	for _, c := range over {
		flags = append(flags, "--endpoint="+c.GRPC)
	}
	q := start(t, "query", flags...).Ready(t)
	fleet.Eventually(t, "all endpoints are healthy", time.Minute, func() error { return healthy(t, q, over) })
	return q
}

// healthy asks a querier for its endpoints, and is nil when each is there without an error.
func healthy(t *testing.T, q *fleet.Component, want []*fleet.Component) error {
	t.Helper()
	var stores map[string][]struct {
		Name      string
		LastError any
		LabelSets []map[string]string
		MinTime   int64
		MaxTime   int64
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, q.URL+"/api/v1/stores", nil)
	if err != nil {
		return err
	}
	if _, err := answer.Do(req, &stores); err != nil {
		return err
	}
	found := map[string]bool{}
	for kind, list := range stores {
		for _, s := range list {
			if s.LastError != nil {
				return fmt.Errorf("%s %s: %v", kind, s.Name, s.LastError)
			}
			found[s.Name] = true
			t.Logf("%s lists %s %s with %v from %d to %d", q.URL, kind, s.Name, s.LabelSets, s.MinTime, s.MaxTime)
		}
	}
	for _, c := range want {
		if !found[c.GRPC] {
			return fmt.Errorf("%s is not among %v", c.GRPC, found)
		}
	}
	return nil
}

// Real Thanos and Koios stand in for one another: a querier of either make over leaves of the other, and
// over a querier of the other, lists them as healthy and answers all questions.
//
// Koios's queriers must answer as Prometheus itself does. Thanos's own must answer as over Thanos's own
// leaves: it rewrites counters at each restart of a target, also without deduplication, so where rate and its
// kin meet a restart it differs from Prometheus whatever is beneath it.
func TestBesideThanos(t *testing.T) {
	dir := t.TempDir()
	if _, err := dataset.WriteBlocks(t.Context(), dir, dataset.A); err != nil {
		t.Fatal(err)
	}
	p := fleet.StartPrometheus(t, fleet.PrometheusConfig{Name: "prometheus", Dir: dir, ExternalLabels: []string{"cluster", "eu", "replica", "a"}})
	koios, thanos := leaves(t, startKoios, p), leaves(t, startThanos, p)
	control := querier(t, startThanos, thanos...)

	for _, c := range []struct {
		name    string
		querier *fleet.Component
		want    string // who gives the wanted answers
	}{
		{"Koios over Thanos's sidecar and store", querier(t, startKoios, thanos...), p.URL},
		{"Koios over Koios's sidecar and store", querier(t, startKoios, koios...), p.URL},
		{"Koios over Koios's sidecar and Thanos's store", querier(t, startKoios, koios[0], thanos[1]), p.URL},
		{"Koios over Thanos's querier over Thanos's sidecar and store", querier(t, startKoios, control), p.URL},
		{"Thanos over Koios's sidecar and store", querier(t, startThanos, koios...), control.URL},
		{"Thanos over Thanos's sidecar and Koios's store", querier(t, startThanos, thanos[0], koios[1]), control.URL},
		{"Thanos over Koios's querier over Koios's sidecar and store", querier(t, startThanos, querier(t, startKoios, koios...)), control.URL},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			for _, question := range questions {
				for _, query := range question.asked("dedup", "false") {
					asked++
					compareAt(t, query, question.ordered, c.want, c.querier.URL)
				}
			}
			t.Logf("%d answers compared", asked)
		})
	}
}

// compareAt asks two servers and compares their answers without the external labels.
func compareAt(t *testing.T, query answer.Query, ordered bool, wantURL, gotURL string) {
	t.Helper()
	want, err := answer.Ask(t.Context(), wantURL, query)
	if err != nil {
		t.Fatal(err)
	}
	got, err := answer.Ask(t.Context(), gotURL, query)
	if err != nil {
		t.Errorf("%s: %v", query.Expr, err)
		return
	}
	if len(got.Warnings) > len(want.Warnings) {
		t.Errorf("%s: warnings %q, want %q", query.Expr, got.Warnings, want.Warnings)
	}
	external := map[string]string{"cluster": "eu", "replica": "a"}
	if diff := answer.Diff(want.Without(external), got.Without(external), ordered); diff != "" {
		t.Errorf("%s (step %v): %s", query.Expr, query.Step, diff)
	}
}
