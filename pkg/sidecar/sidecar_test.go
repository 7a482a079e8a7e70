package sidecar

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
	storeserver "github.com/koios-metrics/koios/pkg/store/server"
)

// Shows the whole life: the sidecar starts before its Prometheus and is not ready, refuses what it is asked
// and counts itself down; it gets ready with it, not ready when it goes away, and ready again.
func TestReadiness(t *testing.T) {
	srv := newServer(t, newFake())
	s := run(t, srv.addr)

	eventually(t, "a reason", func() bool { return strings.Contains(s.probe.reason(), "refused") })
	if s.probe.isReady() || s.up() != 0 {
		t.Fatalf("ready %v, up %v without a Prometheus", s.probe.isReady(), s.up())
	}
	ctx := context.Background()
	m := labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")
	_, err := s.Store().Series(ctx, &store.SeriesRequest{Matchers: []*labels.Matcher{m}})
	if store.KindOf(err) != store.KindUnavailable {
		t.Fatalf("Series: %v", err)
	}
	if _, _, err = s.Store().LabelNames(ctx, &store.LabelNamesRequest{}); store.KindOf(err) != store.KindUnavailable {
		t.Fatalf("LabelNames: %v", err)
	}
	if _, _, err = s.Store().LabelValues(ctx, &store.LabelValuesRequest{Label: "a"}); store.KindOf(err) != store.KindUnavailable {
		t.Fatalf("LabelValues: %v", err)
	}
	if _, err := s.Info(); !errors.Is(err, storeserver.ErrNotReady) {
		t.Fatalf("Info: %v", err)
	}

	for range 2 {
		srv.start()
		eventually(t, "readiness", s.probe.isReady)
		if s.up() != 1 {
			t.Fatalf("up is %v", s.up())
		}
		info, err := s.Info()
		check(t, err)
		if info.ComponentType != "sidecar" || info.Rules == nil || info.Targets == nil || info.MetricMetadata == nil || info.Exemplars == nil || info.Status == nil ||
			len(info.Store.TsdbInfos) != 1 || info.Store.MinTime != 1_000_000 || info.Store.MaxTime != math.MaxInt64 {
			t.Fatalf("info: %v", info)
		}
		d := s.Store().Describe()
		if want := labels.FromStrings("cluster", "one", "replica", "a"); len(d.LabelSets) != 1 || !labels.Equal(d.LabelSets[0], want) {
			t.Fatalf("labels: %v", d.LabelSets)
		}

		srv.stop()
		eventually(t, "the end of readiness", func() bool { return !s.probe.isReady() && s.up() == 0 })
		if _, err := s.Info(); !errors.Is(err, storeserver.ErrNotReady) {
			t.Fatalf("Info: %v", err)
		}
	}
}

// Shows that each thing that can be wrong with an answer makes the sidecar not ready with a reason that says
// what, and that it heals.
func TestBadAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*fake)
		reason string
	}{
		"no config":        {func(f *fake) { f.setStatus("/api/v1/status/config", 500) }, "code 500"},
		"config cut":       {func(f *fake) { f.set("/api/v1/status/config", `{"status":"success","data":{"ya`) }, "answer is not that of a Prometheus"},
		"malformed YAML":   {func(f *fake) { f.setConfig(`global: [\n`) }, "parse configuration"},
		"no metrics":       {func(f *fake) { f.set("/metrics", "up 1\n") }, "prometheus_tsdb_lowest_timestamp_seconds"},
		"starting":         {func(f *fake) { f.setStatus("/api/v1/status/config", 503) }, "503"},
		"version refused":  {func(f *fake) { f.setStatus("/api/v1/status/buildinfo", 401) }, "401"},
		"labels are gone":  {func(f *fake) { f.setConfig(`global: {}\n`) }, "set external_labels under global in prometheus.yml"},
		"labels are empty": {func(f *fake) { f.setConfig(`global: {external_labels: {}}\n`) }, "external_labels"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			srv := newServer(t, f)
			srv.start()
			s := run(t, srv.addr)
			eventually(t, "readiness", s.probe.isReady)
			good := newFake()
			c.spoil(f)
			eventually(t, "the reason "+c.reason, func() bool { return !s.probe.isReady() && strings.Contains(s.probe.reason(), c.reason) })

			f.mu.Lock()
			f.answers, f.status = good.answers, good.status
			f.mu.Unlock()
			eventually(t, "readiness again", s.probe.isReady)
			if s.up() != 1 {
				t.Fatalf("up is %v", s.up())
			}
		})
	}
}

// Shows that a Prometheus that does not answer in time is taken as away, and that one without an endpoint
// for its version is fine.
func TestSlowAndOld(t *testing.T) {
	f := newFake()
	f.mu.Lock()
	delete(f.answers, "/api/v1/status/buildinfo")
	f.mu.Unlock()
	srv := newServer(t, f)
	srv.start()
	s := run(t, srv.addr, func(c *Config, _ *Deps) { c.GetConfigTimeout = 500 * time.Millisecond })
	eventually(t, "readiness", s.probe.isReady)
	slow := make(chan struct{})
	f.setSlow(slow)
	eventually(t, "a timeout", func() bool {
		return !s.probe.isReady() && strings.Contains(s.probe.reason(), context.DeadlineExceeded.Error())
	})
	f.setSlow(nil)
	close(slow)
	eventually(t, "readiness again", s.probe.isReady)
}

// Shows that labels follow a reload of Prometheus's configuration, that a Prometheus which loses them is
// not served from, and that one which has none from the start ends Run with what to do.
func TestExternalLabels(t *testing.T) {
	f := newFake()
	srv := newServer(t, f)
	srv.start()
	s := run(t, srv.addr)
	eventually(t, "readiness", s.probe.isReady)
	f.setConfig(`global: {external_labels: {zone: b}}\n`)
	want := labels.FromStrings("zone", "b")
	eventually(t, "new labels", func() bool {
		sets := s.Store().Describe().LabelSets
		return len(sets) == 1 && labels.Equal(sets[0], want)
	})
	f.setConfig(`global: {}\n`)
	eventually(t, "refusal", func() bool {
		_, _, err := s.Store().LabelNames(context.Background(), &store.LabelNamesRequest{})
		return store.KindOf(err) == store.KindUnavailable && strings.Contains(err.Error(), "external_labels")
	})
	if s.up() != 1 {
		t.Fatalf("up is %v, Prometheus is there", s.up())
	}

	err := run(t, srv.addr).end()
	if !errors.Is(err, ErrNoExternalLabels) || !strings.Contains(err.Error(), "set external_labels under global in prometheus.yml") {
		t.Fatalf("Run: %v", err)
	}
}

// Shows that the lower end of what is served is the later one of Prometheus's and the flag's, which may move,
// and that a Prometheus without any sample is served from the beginning.
func TestMinTime(t *testing.T) {
	f := newFake()
	srv := newServer(t, f)
	srv.start()
	var mint atomic.Int64
	s := run(t, srv.addr, func(c *Config, _ *Deps) {
		c.MinTime = func() time.Time { return time.UnixMilli(mint.Load()) }
	})
	eventually(t, "readiness", s.probe.isReady)
	expect := func(want int64) {
		t.Helper()
		eventually(t, "mint", func() bool { return s.Store().Describe().MinTime == want })
	}
	expect(1_000_000)
	mint.Store(2_000_000)
	expect(2_000_000)
	f.setLowest("3000")
	expect(3_000_000)
	mint.Store(math.MinInt64)
	f.setLowest("9.223372036854776e+15")
	expect(math.MinInt64)
}

// Shows that the flags are held against what uploads need, and that each refusal and each warning names the
// exact flags to set.
func TestFlagsCheck(t *testing.T) {
	c := flagsCheck{tsdbPath: "/sidecar/data", metaFile: "thanos.shipper.json"}
	f := func(c flagsCheck, warning, wantErr string, flags ...string) {
		t.Helper()
		m := map[string]string{"storage.tsdb.path": "/prometheus"}
		for i := 0; i < len(flags); i += 2 {
			m["storage.tsdb."+flags[i]] = flags[i+1]
		}
		warnings, err := c.check(m)
		if got := strings.Join(warnings, "\n"); got != warning && (warning == "" || !strings.Contains(got, warning)) {
			t.Errorf("%v: warning %q, want %q", flags, got, warning)
		}
		if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%v: error %v, want %q", flags, err, wantErr)
		}
	}
	const (
		both  = "--storage.tsdb.min-block-duration=2h --storage.tsdb.max-block-duration=2h"
		delay = "--storage.tsdb.delay-compact-file.path=/prometheus/thanos.shipper.json"
	)
	f(c, "", "", "min-block-duration", "2h", "max-block-duration", "2h")
	f(c, "", "", "min-block-duration", "2h", "max-block-duration", "120m", "delay-compact-file.path", "")
	f(c, "blocks of 1h", "", "min-block-duration", "1h", "max-block-duration", "1h")
	f(c, "", both, "min-block-duration", "2h", "max-block-duration", "1d12h")
	f(c, "", both+", or with "+delay, "min-block-duration", "2h", "max-block-duration", "1d12h", "delay-compact-file.path", "")
	f(c, "", "--shipper.ignore-unequal-block-size", "min-block-duration", "2h", "max-block-duration", "1d12h")
	f(c, both, "")
	f(c, both, "", "min-block-duration", "2h", "max-block-duration", "long")

	f(c, "", "", "min-block-duration", "2h", "max-block-duration", "1d12h", "delay-compact-file.path", "/prometheus/thanos.shipper.json")
	f(c, "", "", "min-block-duration", "2h", "max-block-duration", "1d12h", "delay-compact-file.path", "/prometheus/./thanos.shipper.json")
	f(c, "", "", "delay-compact-file.path", "/sidecar/data/thanos.shipper.json", "path", "data")
	f(c, "", delay, "min-block-duration", "2h", "max-block-duration", "2h", "delay-compact-file.path", "/prometheus/other.json")

	c.ignoreUnequal = true
	f(c, both, "", "min-block-duration", "2h", "max-block-duration", "1d12h")
	f(c, "", delay, "min-block-duration", "2h", "max-block-duration", "1d12h", "delay-compact-file.path", "/other/thanos.shipper.json")
	c.metaFile = "other.json"
	f(c, "", "", "min-block-duration", "2h", "max-block-duration", "1d12h", "delay-compact-file.path", "/prometheus/other.json")
}

// uploads makes a sidecar upload from a directory, quickly.
func uploads(dir string, bkt objstore.Bucket) func(*Config, *Deps) {
	return func(c *Config, d *Deps) {
		c.TSDBPath, d.Bucket = dir, bkt
		c.Shipper.Interval = 5 * time.Millisecond
	}
}

// Shows that flags are checked at the start when blocks are uploaded: waited for while Prometheus is away,
// passed over when it does not tell them, and an end of Run when they are wrong. Without uploads nobody asks.
func TestFlagsAtStart(t *testing.T) {
	wrong := `{"storage.tsdb.path":"/prometheus","storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"36h","storage.tsdb.delay-compact-file.path":""}`
	t.Run("wrong", func(t *testing.T) {
		f := newFake()
		f.setFlags(wrong)
		srv := newServer(t, f)
		srv.start()
		err := run(t, srv.addr, uploads(t.TempDir(), objstore.NewInMemBucket())).end()
		if err == nil || !strings.Contains(err.Error(), "--storage.tsdb.delay-compact-file.path=/prometheus/thanos.shipper.json") {
			t.Fatalf("Run: %v", err)
		}
	})
	t.Run("wrong but ignored", func(t *testing.T) {
		f := newFake()
		f.setFlags(wrong)
		srv := newServer(t, f)
		srv.start()
		s := run(t, srv.addr, uploads(t.TempDir(), objstore.NewInMemBucket()), func(c *Config, _ *Deps) { c.IgnoreUnequalBlockSize = true })
		eventually(t, "readiness", s.probe.isReady)
	})
	t.Run("wrong without uploads", func(t *testing.T) {
		f := newFake()
		f.setFlags(wrong)
		srv := newServer(t, f)
		srv.start()
		s := run(t, srv.addr)
		eventually(t, "readiness", s.probe.isReady)
		if f.lastAsked("/api/v1/status/flags") != nil {
			t.Fatal("asked for flags")
		}
	})
	t.Run("not told", func(t *testing.T) {
		f := newFake()
		f.mu.Lock()
		delete(f.answers, "/api/v1/status/flags")
		f.mu.Unlock()
		srv := newServer(t, f)
		srv.start()
		s := run(t, srv.addr, uploads(t.TempDir(), objstore.NewInMemBucket()))
		eventually(t, "readiness", s.probe.isReady)
	})
	t.Run("later", func(t *testing.T) {
		f := newFake()
		f.setStatus("/api/v1/status/flags", 503)
		srv := newServer(t, f)
		srv.start()
		s := run(t, srv.addr, uploads(t.TempDir(), objstore.NewInMemBucket()))
		eventually(t, "a reason", func() bool { return strings.Contains(s.probe.reason(), "503") })
		f.setStatus("/api/v1/status/flags", 0)
		eventually(t, "readiness", s.probe.isReady)
	})
}

// Shows that blocks are uploaded with the labels of Prometheus once they are known, and not while they are
// lost.
func TestUpload(t *testing.T) {
	f := newFake()
	srv := newServer(t, f)
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	first := writeBlock(t, dir, 1)
	s := run(t, srv.addr, uploads(dir, bkt))
	eventually(t, "a failed try", func() bool { return strings.Contains(s.probe.reason(), "refused") })
	if n := len(bkt.Objects()); n != 0 {
		t.Fatalf("%d objects without labels", n)
	}
	srv.start()
	meta := func(id ulid.ULID) *block.Meta {
		name := block.Object(id, block.MetaFilename)
		eventually(t, name, func() bool { return bkt.Objects()[name] != nil })
		m, err := block.ParseMeta(bkt.Objects()[name])
		check(t, err)
		return m
	}
	m := meta(first)
	if diff := cmp.Diff(map[string]string{"cluster": "one", "replica": "a"}, m.Thanos.Labels); diff != "" || m.Thanos.Source != block.SourceSidecar {
		t.Fatalf("source %s, labels (-want +got):\n%s", m.Thanos.Source, diff)
	}
	f.setConfig(`global: {}\n`)
	eventually(t, "the loss of labels", func() bool { return s.known.externalLabels().IsEmpty() })
	second := writeBlock(t, dir, 2)
	fails := func() float64 { return value(t, s, "thanos_shipper_dir_sync_failures_total") }
	before := fails()
	eventually(t, "two failed rounds", func() bool { return fails() >= before+2 })
	if bkt.Objects()[block.Object(second, block.MetaFilename)] != nil {
		t.Fatal("uploaded without labels")
	}
	f.setConfig(`global: {external_labels: {zone: b}}\n`)
	if diff := cmp.Diff(map[string]string{"zone": "b"}, meta(second).Thanos.Labels); diff != "" {
		t.Fatalf("labels (-want +got):\n%s", diff)
	}
}

func value(t testing.TB, s *running, name string) float64 {
	t.Helper()
	fams, err := s.reg.Gather()
	check(t, err)
	for _, f := range fams {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// writeBlock makes a directory that looks like a block.
func writeBlock(t testing.TB, dir string, n byte) ulid.ULID {
	t.Helper()
	id := ulid.ULID{5: n}
	to := filepath.Join(dir, "new")
	check(t, os.MkdirAll(filepath.Join(to, block.ChunksDirname), 0o777))
	check(t, os.WriteFile(filepath.Join(to, "chunks", "000001"), []byte("chunks"), 0o666))
	check(t, os.WriteFile(filepath.Join(to, "index"), []byte("index"), 0o666))
	check(t, block.WriteMetaDir(to, &block.Meta{BlockMeta: tsdb.BlockMeta{
		ULID: id, Version: 1, MinTime: int64(n), MaxTime: int64(n) + 1, Stats: tsdb.BlockStats{NumSamples: 1}, Compaction: tsdb.BlockMetaCompaction{Level: 1},
	}}))
	check(t, os.Rename(to, filepath.Join(dir, id.String())))
	return id
}

// Shows that Run gives up when blocks are to be uploaded and Prometheus stays away, and says which flag
// bounds the wait and what was wrong; without uploads it waits on.
func TestReadyTimeout(t *testing.T) {
	srv := newServer(t, newFake())
	short := func(c *Config, _ *Deps) { c.ReadyTimeout = 50 * time.Millisecond }
	err := run(t, srv.addr, short, uploads(t.TempDir(), objstore.NewInMemBucket())).end()
	if err == nil || !strings.Contains(err.Error(), "--prometheus.ready_timeout of 50ms") || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("Run: %v", err)
	}
	s := run(t, srv.addr, short)
	eventually(t, "a failed try", func() bool { return strings.Contains(s.probe.reason(), "refused") })
	srv.start()
	eventually(t, "readiness", s.probe.isReady)
}

// Shows that the reloader lives as long as the sidecar does, and that its end is the sidecar's.
func TestReloaderRuns(t *testing.T) {
	f := newFake()
	srv := newServer(t, f)
	srv.start()
	r := &loop{}
	s := run(t, srv.addr, func(_ *Config, d *Deps) { d.Reloader = r })
	eventually(t, "the reloader", r.running.Load)
	s.cancel()
	check(t, s.end())
	if r.running.Load() {
		t.Fatal("the reloader still runs")
	}
	r = &loop{err: errors.New("broken")}
	if err := run(t, srv.addr, func(_ *Config, d *Deps) { d.Reloader = r }).end(); !errors.Is(err, r.err) {
		t.Fatalf("Run: %v", err)
	}
}

type loop struct {
	running atomic.Bool
	err     error
}

func (l *loop) Run(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	l.running.Store(true)
	defer l.running.Store(false)
	<-ctx.Done()
	return nil
}

// Shows that contradictions in the configuration are explained.
func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"--prometheus.get_config_interval": {GetConfigInterval: -1},
		"--prometheus.get_config_timeout":  {GetConfigTimeout: -1},
		"--prometheus.ready_timeout":       {ReadyTimeout: -1},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// Shows the names of the metrics that are there from the first scrape, before Prometheus has answered.
func TestMetricNames(t *testing.T) {
	srv := newServer(t, newFake())
	s := run(t, srv.addr, uploads(t.TempDir(), objstore.NewInMemBucket()))
	s.Register(grpc.NewServer())
	fams, err := s.reg.Gather()
	check(t, err)
	got := map[string]bool{}
	for _, f := range fams {
		got[f.GetName()] = true
	}
	for _, want := range []string{
		"prometheus_store_received_frames",
		"thanos_shipper_corrupted_blocks_total", "thanos_shipper_dir_sync_failures_total", "thanos_shipper_dir_syncs_total",
		"thanos_shipper_upload_compacted_done", "thanos_shipper_upload_failures_total", "thanos_shipper_uploads_total",
		"thanos_sidecar_prometheus_up",
		"thanos_store_server_chunks_requested", "thanos_store_server_pending_series_requests", "thanos_store_server_series_requested",
	} {
		if !got[want] {
			t.Errorf("no metric %s", want)
		}
	}
}
