package bucketops

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/block"
)

func list(t *testing.T, w *world, cfg ListConfig) string {
	t.Helper()
	var out strings.Builder
	if err := List(context.Background(), w.bkt, cfg, &out, quietLogger(), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// ls writes ids, lines, metadata or a template, in the order of time, and leaves out what it is told to.
func TestList(t *testing.T) {
	w := newWorld(t)
	late := w.add(spec{mint: base + 2*hour, maxt: base + 4*hour})
	early := w.add(spec{meta: func(m *block.Meta) { m.Compaction.Level, m.Thanos.Downsample.Resolution = 2, 300000 }})
	gone := w.add(spec{mint: base + 4*hour, maxt: base + 6*hour})
	w.put(gone, block.DeletionMarkFilename, `{"id":"`+gone.String()+`","version":1,"deletion_time":1}`)
	f := func(cfg ListConfig, want string) {
		t.Helper()
		if d := cmp.Diff(want, list(t, w, cfg)); d != "" {
			t.Errorf("%+v (-want +got):\n%s", cfg, d)
		}
	}
	f(ListConfig{}, early.String()+"\n"+late.String()+"\n"+gone.String()+"\n")
	f(ListConfig{ExcludeDeleted: true}, early.String()+"\n"+late.String()+"\n")
	f(ListConfig{ExcludeDeleted: true, Output: "wide"},
		early.String()+" -- 2026-03-08T12:00:00Z - 2026-03-08T14:00:00Z Diff: 2h0m0s, Compaction: 2, Downsample: 300000, Source: sidecar\n"+
			late.String()+" -- 2026-03-08T14:00:00Z - 2026-03-08T16:00:00Z Diff: 2h0m0s, Compaction: 1, Downsample: 0, Source: sidecar\n")
	f(ListConfig{Output: "{{.MinTime}}/{{.Thanos.Labels.cluster}}", ExcludeDeleted: true}, "1772971200000/a\n1772978400000/a\n")
	times := Choice{MinTime: func() int64 { return base + 3*hour }, MaxTime: func() int64 { return base + 3*hour }}
	f(ListConfig{Choice: times}, late.String()+"\n")

	m, err := block.GetMeta(context.Background(), w.bkt, late)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	f(ListConfig{Choice: times, Output: "json"}, string(b))

	if _, err := listFormat("{{.Missing"); err == nil {
		t.Error("a broken template is accepted")
	}
}

// inspect writes a table as Thanos does, sorted and chosen by labels.
func TestInspect(t *testing.T) {
	w := newWorld(t)
	a := w.add(spec{meta: func(m *block.Meta) { m.Compaction.Failed, m.Stats.NumSamples = true, 1234567 }})
	b := w.add(spec{labels: map[string]string{"cluster": "b", "replica": "1"}, meta: func(m *block.Meta) {
		m.MaxTime = m.MinTime + 14*24*hour
		m.Thanos.Downsample.Resolution = block.Resolution5m
	}})
	show := func(cfg InspectConfig) string {
		t.Helper()
		var out strings.Builder
		if err := Inspect(context.Background(), w.bkt, cfg, &out, quietLogger(), prometheus.NewRegistry()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	f := func(cfg InspectConfig, want string) {
		t.Helper()
		want = strings.NewReplacer("<a>", a.String(), "<b>", b.String()).Replace(want)
		if d := cmp.Diff(want, show(cfg)); d != "" {
			t.Errorf("%+v (-want +got):\n%s", cfg, d)
		}
	}
	const head = "ULID,FROM,UNTIL,RANGE,UNTIL-DOWN,#SERIES,#SAMPLES,#CHUNKS,COMP-LEVEL,COMP-FAILED,LABELS,RESOLUTION,SOURCE\n"
	const lineA = `<a>,2026-03-08T12:00:00Z,2026-03-08T14:00:00Z,2h0m0s,38h0m0s,3,"1,234,567",12,1,true,cluster=a,0s,sidecar` + "\n"
	const lineB = `<b>,2026-03-08T12:00:00Z,2026-03-22T12:00:00Z,336h0m0s,-,3,"1,440",12,1,false,"cluster=b,replica=1",5m0s,sidecar` + "\n"
	f(InspectConfig{Output: "csv", SortBy: []string{"FROM", "UNTIL"}}, head+lineA+lineB)
	f(InspectConfig{Output: "csv", SortBy: []string{"#SAMPLES"}}, head+lineB+lineA)
	f(InspectConfig{Output: "csv", Labels: map[string]string{"replica": "1"}}, head+lineB)
	f(InspectConfig{Output: "tsv", Labels: map[string]string{"cluster": "a"}},
		strings.ReplaceAll(head, ",", "\t")+"<a>\t2026-03-08T12:00:00Z\t2026-03-08T14:00:00Z\t2h0m0s\t38h0m0s\t3\t1,234,567\t12\t1\ttrue\tcluster=a\t0s\tsidecar\n")
	f(InspectConfig{Output: "table", Labels: map[string]string{"cluster": "a"}},
		"|            ULID            |         FROM         |        UNTIL         | RANGE  | UNTIL-DOWN | #SERIES | #SAMPLES  | #CHUNKS | COMP-LEVEL | COMP-FAILED |  LABELS   | RESOLUTION | SOURCE  |\n"+
			"|----------------------------|----------------------|----------------------|--------|------------|---------|-----------|---------|------------|-------------|-----------|------------|---------|\n"+
			"| <a> | 2026-03-08T12:00:00Z | 2026-03-08T14:00:00Z | 2h0m0s | 38h0m0s    | 3       | 1,234,567 | 12      | 1          | true        | cluster=a | 0s         | sidecar |\n")
	err := Inspect(context.Background(), w.bkt, InspectConfig{SortBy: []string{"AGE"}}, &strings.Builder{}, quietLogger(), prometheus.NewRegistry())
	if err == nil {
		t.Error("an unknown column is accepted")
	}
}

// Numbers get a comma for each thousand.
func TestThousands(t *testing.T) {
	f := func(n int64, want string) {
		t.Helper()
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	f(0, "0")
	f(999, "999")
	f(1000, "1,000")
	f(-999, "-999")
	f(-1000, "-1,000")
	f(1234567, "1,234,567")
}
