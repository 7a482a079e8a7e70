package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	thanos "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/test/fleet"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
	// The data: so many hours, in blocks of blockHours, of each group.
	dataHours, blockHours = 48, 8
)

var groups = []string{"eu", "us"}

// seriesOf are the series of a group: a counter that is reset at times, and a gauge.
func value(kind int, group string, ts int64) float64 {
	n := ts / minute
	if kind == 0 {
		return float64(n % 700 * int64(len(group)+3))
	}
	return math.Round(1000*math.Sin(float64(n)/97)) / 8
}

var names = []string{"requests_total", "temperature"}

// objects are the objects of the bucket at the beginning.
func objects(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	dir := t.TempDir()
	for g, group := range groups {
		for from := int64(0); from < dataHours*hour; from += blockHours * hour {
			id := ulid.MustNew(uint64(from)+1_000_000, bytes.NewReader(bytes.Repeat([]byte{byte(g + 1)}, 10)))
			writeBlock(t, filepath.Join(dir, id.String()), id, group, from, from+blockHours*hour)
		}
	}
	bkt, err := objstore.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := block.Upload(t.Context(), bkt, filepath.Join(dir, e.Name()), block.UploadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	err = bkt.Iter(t.Context(), "", func(name string) error {
		r, err := bkt.Get(t.Context(), name)
		if err != nil {
			return err
		}
		defer r.Close()
		all[name], err = io.ReadAll(r)
		return err
	}, thanos.WithRecursiveIter())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func writeBlock(t *testing.T, dir string, id ulid.ULID, group string, from, to int64) {
	t.Helper()
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		t.Fatal(err)
	}
	iw, err := index.NewWriter(t.Context(), filepath.Join(dir, block.IndexFilename))
	if err != nil {
		t.Fatal(err)
	}
	symbols := append([]string{labels.MetricName}, names...) //nolint:staticcheck // the same string
	slices.Sort(symbols)
	for _, s := range symbols {
		if err := iw.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	m := &block.Meta{Thanos: block.Thanos{Version: 1, Labels: map[string]string{"cluster": group}, Source: block.SourceSidecar}}
	for kind, name := range names {
		var cs []chunks.Meta
		for at := from; at < to; at += 120 * minute {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			if err != nil {
				t.Fatal(err)
			}
			for ts := at; ts < at+120*minute; ts += minute {
				app.Append(ts, value(kind, group, ts))
				m.Stats.NumSamples++
			}
			cs = append(cs, chunks.Meta{Chunk: c, MinTime: at, MaxTime: at + 119*minute})
		}
		if err := errors.Join(cw.WriteChunks(cs...), iw.AddSeries(storage.SeriesRef(kind), labels.FromStrings("__name__", name), cs...)); err != nil {
			t.Fatal(err)
		}
		m.Stats.NumSeries++
		m.Stats.NumChunks += uint64(len(cs))
	}
	if err := errors.Join(cw.Close(), iw.Close()); err != nil {
		t.Fatal(err)
	}
	m.ULID, m.Version, m.MinTime, m.MaxTime = id, 1, from, to
	m.Stats.NumFloatSamples = m.Stats.NumSamples
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{id}
	if err := block.WriteMetaDir(dir, m); err != nil {
		t.Fatal(err)
	}
}

// expected are the raw samples, by group and series, by time.
func expected() map[string]map[int64]float64 {
	want := map[string]map[int64]float64{}
	for _, group := range groups {
		for kind, name := range names {
			samples := map[int64]float64{}
			for ts := int64(0); ts < dataHours*hour; ts += minute {
				samples[ts] = value(kind, group, ts)
			}
			want[group+" "+name] = samples
		}
	}
	return want
}

// storages are the kinds of object storage that runs take turns at, each as a function from the name of a run to a
// config. The S3 server is the program that KOIOS_S3 names, or else one in this process.
func storages(t *testing.T) (names []string, configs []func(run string) string) {
	t.Helper()
	files := func(string) string { return "type: FILESYSTEM\nconfig:\n  directory: " + t.TempDir() + "\n" }
	if program := os.Getenv("KOIOS_S3"); program != "" {
		return []string{"file system", "S3 server"}, []func(string) string{files, fleet.StartS3(t, program)}
	}
	backend := s3mem.New()
	if err := backend.CreateBucket("blocks"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	s3 := func(run string) string {
		return fleet.S3Config(strings.TrimPrefix(srv.URL, "http://"), "blocks", run)
	}
	return []string{"file system", "S3 in memory"}, []func(string) string{files, s3}
}

// openBucket opens the bucket of a config and puts objects there.
func openBucket(t *testing.T, config string, objects map[string][]byte) thanos.Bucket {
	t.Helper()
	bkt, err := objstore.New(log.NewNopLogger(), []byte(config), nil, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bkt.Close() })
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		if err := bkt.Upload(t.Context(), name, bytes.NewReader(objects[name])); err != nil {
			t.Fatal(err)
		}
	}
	return bkt
}

// left is what there is in a bucket: the metadata of the blocks that are not marked for deletion, and the names of all
// objects.
func left(t *testing.T, bkt thanos.Bucket) (metas map[ulid.ULID]*block.Meta, names []string) {
	t.Helper()
	metas = map[ulid.ULID]*block.Meta{}
	ctx := context.Background()
	ids := map[ulid.ULID]bool{}
	err := bkt.Iter(ctx, "", func(name string) error {
		names = append(names, name)
		dir, _, _ := strings.Cut(name, "/")
		if id, ok := block.ParseID(dir); ok {
			ids[id] = true
		}
		return nil
	}, thanos.WithRecursiveIter())
	if err != nil {
		t.Fatal(err)
	}
	for id := range ids {
		m, err := block.GetMeta(ctx, bkt, id)
		if errors.Is(err, block.ErrPartial) {
			continue
		}
		mark, merr := block.ReadDeletionMark(ctx, bkt, id)
		if err := errors.Join(err, merr); err != nil {
			t.Fatal(err)
		}
		if mark == nil {
			metas[id] = m
		}
	}
	return metas, names
}

// readRaw reads the raw samples of blocks, and reports those that are there twice.
func readRaw(t *testing.T, bkt thanos.Bucket, metas map[ulid.ULID]*block.Meta) map[string]map[int64]float64 {
	t.Helper()
	got := map[string]map[int64]float64{}
	for id, m := range metas {
		if m.Resolution() != block.ResolutionRaw {
			continue
		}
		dir := filepath.Join(t.TempDir(), id.String())
		if _, err := block.Download(context.Background(), bkt, id, dir, 1); err != nil {
			t.Fatal(err)
		}
		if err := readBlock(dir, m, func(series string, ts int64, v float64) {
			if got[series] == nil {
				got[series] = map[int64]float64{}
			}
			if _, twice := got[series][ts]; twice {
				t.Errorf("%s at %d is there twice", series, ts)
			}
			got[series][ts] = v
		}); err != nil {
			t.Error(err)
		}
	}
	return got
}

func readBlock(dir string, m *block.Meta, sample func(series string, ts int64, v float64)) (err error) {
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, m.MinTime, m.MaxTime)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		series := m.Thanos.Labels["cluster"] + " " + set.At().Labels().Get("__name__")
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			sample(series, ts, v)
		}
		if it.Err() != nil {
			return fmt.Errorf("%s of block %s: %w", series, m.ULID, it.Err())
		}
	}
	return set.Err()
}

// orphans are the objects that belong to no block.
func orphans(metas map[ulid.ULID]*block.Meta, names []string) (orphans []string) {
	known := map[string]bool{}
	for id, m := range metas {
		for _, f := range m.Thanos.Files {
			known[block.Object(id, f.RelPath)] = true
		}
	}
	for _, name := range names {
		if !known[name] {
			orphans = append(orphans, name)
		}
	}
	return orphans
}

// shape lists blocks as group, resolution, hours and level.
func shape(metas map[ulid.ULID]*block.Meta) (lines []string) {
	for _, m := range metas {
		lines = append(lines, fmt.Sprintf("%s %d %d-%d level %d", m.Thanos.Labels["cluster"], m.Resolution(), m.MinTime/hour, m.MaxTime/hour, m.Compaction.Level))
	}
	slices.Sort(lines)
	return lines
}
