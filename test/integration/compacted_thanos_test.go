//go:build compat

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/koios-metrics/koios/pkg/block"
	koiosobjstore "github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/proto/storepb"
	"github.com/koios-metrics/koios/test/fleet"
)

const day = 24 * time.Hour

var afterAll = month.start.Add(365 * day)

// streams are the external labels of the blocks to be compacted, and when their scrapes come: two replicas and a stream
// that is alone.
var streams = []struct {
	labels map[string]string
	shift  time.Duration
}{
	{map[string]string{"cluster": "eu", "replica": "a"}, 0},
	{map[string]string{"cluster": "eu", "replica": "b"}, 23 * time.Second},
	{map[string]string{"cluster": "us"}, 0},
}

// writeStreams fills a bucket with blocks that lead to a block of fourteen days, one of two days, one of eight hours, and
// some that stay as they are.
func writeStreams(t *testing.T) string {
	t.Helper()
	dir, at := t.TempDir(), month.start
	bkt, err := koiosobjstore.NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, spans := range []struct {
		n    int
		long time.Duration
	}{{7, 2 * day}, {6, 8 * time.Hour}, {6, 2 * time.Hour}} {
		for range spans.n {
			for _, s := range streams {
				writeSpan(t, bkt, at, at.Add(spans.long), s.shift, s.labels)
			}
			at = at.Add(spans.long)
		}
	}
	return dir
}

func writeSpan(t *testing.T, bkt objstore.Bucket, start, end time.Time, shift time.Duration, external map[string]string) {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, end.Sub(start).Milliseconds())
	if err != nil {
		t.Fatal(err)
	}
	// Scrapes go on across blocks.
	first := month.start.Add(shift)
	for at := first.Add((start.Sub(first) + scrape - 1) / scrape * scrape); at.Before(end); at = at.Add(scrape) {
		writeScrape(t, w, at, nil)
	}
	id, err := w.Flush(t.Context())
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, id.String())
	m, err := block.ReadMetaDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Thanos.Labels, m.Thanos.Source = external, block.SourceTest
	if err := block.WriteMetaDir(dir, m); err != nil {
		t.Fatal(err)
	}
	if _, err := block.Upload(t.Context(), bkt, dir, block.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
}

// compactAll runs a program's compactor over a bucket until all is done. What was replaced is deleted.
func compactAll(t *testing.T, program, dir string) {
	t.Helper()
	p := fleet.Start(t, filepath.Base(program)+" compact", program, "compact", "--data-dir="+t.TempDir(), "--http-address="+fleet.FreeAddr(t),
		"--objstore.config-file="+fleet.BucketConfig(t, dir), "--consistency-delay=0s", "--delete-delay=0s",
		"--deduplication.func=penalty", "--deduplication.replica-label=replica")
	if code := p.WaitExit(t, 10*time.Minute); code != 0 {
		t.Fatalf("%s ended with %d:\n%s", program, code, p.Log())
	}
	for line := range strings.Lines(p.Log()) {
		if strings.Contains(line, "level=error") {
			t.Errorf("%s: %s", program, line)
		}
	}
}

// blocksOf are the blocks of a bucket: id, resolution, length and labels.
func blocksOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(dir, "*", block.MetaFilename))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range metas {
		m, err := block.ReadMetaDir(filepath.Dir(name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(name), block.DeletionMarkFilename)); err == nil {
			continue
		}
		found[m.ULID.String()] = fmt.Sprintf("resolution %s of %s from %s on, %v", time.Duration(m.Resolution())*time.Millisecond,
			time.Duration(m.MaxTime-m.MinTime)*time.Millisecond, time.UnixMilli(m.MinTime).UTC().Format(time.DateTime), m.Thanos.Labels)
	}
	return found
}

// chunkQuestion is what a StoreAPI is asked for.
type chunkQuestion struct {
	cluster, metric string // regular expressions
	end             time.Time
	resolution      time.Duration
	aggrs           []storepb.Aggr
}

func (q chunkQuestion) String() string {
	return fmt.Sprintf("resolution %s, cluster %s, metric %s, %v", q.resolution, q.cluster, q.metric, q.aggrs)
}

const natives = "rpc_duration_seconds|queue_age_seconds"

// chunkQuestions are about every resolution, for all aggregates at once and each alone. Native histograms have no min and
// max: both makes refuse to be asked for these.
func chunkQuestions(cluster string, end time.Time) (qs []chunkQuestion) {
	of := map[string][]storepb.Aggr{
		"[^rq].*": {storepb.Aggr_COUNT, storepb.Aggr_SUM, storepb.Aggr_MIN, storepb.Aggr_MAX, storepb.Aggr_COUNTER},
		natives:   {storepb.Aggr_COUNT, storepb.Aggr_SUM, storepb.Aggr_COUNTER},
	}
	for _, resolution := range []time.Duration{0, 5 * time.Minute, time.Hour} {
		for metric, aggrs := range of {
			qs = append(qs, chunkQuestion{cluster, metric, end, resolution, aggrs})
			for i := range aggrs {
				qs = append(qs, chunkQuestion{cluster, metric, end, resolution, aggrs[i : i+1]})
			}
		}
	}
	return qs
}

func infinite(series string, _ []string) bool {
	return strings.Contains(series, `is="inf"`) || strings.Contains(series, `is="-inf"`)
}

// held asks a StoreAPI, and returns for each series its chunks, every one once.
func held(t *testing.T, addr string, q chunkQuestion) map[string][]string {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stream, err := storepb.NewStoreClient(cc).Series(ctx, &storepb.SeriesRequest{
		MinTime: month.start.UnixMilli(), MaxTime: q.end.UnixMilli(), MaxResolutionWindow: q.resolution.Milliseconds(), Aggregates: q.aggrs,
		Matchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: q.metric}, {Type: storepb.LabelMatcher_RE, Name: "cluster", Value: q.cluster},
		},
		PartialResponseDisabled: true, PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT,
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if w := res.GetWarning(); w != "" {
			t.Fatal(w)
		}
		all := res.GetBatch().GetSeries()
		if s := res.GetSeries(); s != nil {
			all = append(all, s)
		}
		for _, s := range all {
			var key strings.Builder
			for _, l := range s.Labels {
				fmt.Fprintf(&key, "%s=%q ", l.Name, l.Value)
			}
			for _, c := range s.Chunks {
				found[key.String()] = append(found[key.String()], chunkText(c))
			}
		}
	}
	for key, cs := range found {
		slices.Sort(cs)
		found[key] = slices.Compact(cs)
	}
	return found
}

func chunkText(c *storepb.AggrChunk) string {
	text := fmt.Sprintf("%d to %d", c.MinTime, c.MaxTime)
	for i, part := range []*storepb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter} {
		if part != nil {
			text += fmt.Sprintf(", %s: %v of %d bytes %x", []string{"raw", "count", "sum", "min", "max", "counter"}[i], part.Type, len(part.Data), xxhash.Sum64(part.Data))
		}
	}
	return text
}

// Blocks that Koios compacted and downsampled are Thanos's, and the other way round: from either bucket the stores of
// both hand out the same chunks at every resolution and for every aggregate; neither's verification finds a fault in the
// other's bucket; and where replicas leave nothing to decide, both make the same of the same.
func TestCompactedBesideThanos(t *testing.T) {
	thanos, koios := os.Getenv("KOIOS_THANOS"), fleet.KoiosProgram(t)
	if thanos == "" {
		t.Fatal("name a Thanos program in KOIOS_THANOS: this test runs beside it")
	}
	ours, theirs := writeStreams(t), t.TempDir()
	if err := os.CopyFS(theirs, os.DirFS(ours)); err != nil {
		t.Fatal(err)
	}
	compactAll(t, koios, ours)
	compactAll(t, thanos, theirs)
	for _, dir := range []string{ours, theirs} {
		for id, text := range blocksOf(t, dir) {
			t.Log(map[string]string{ours: "Koios", theirs: "Thanos"}[dir], id, text)
		}
	}

	// Who serves is the first word, who compacted the second.
	stores := map[string]*fleet.Component{}
	for maker, start := range map[string]maker{"Koios": startKoios, "Thanos": startThanos} {
		for of, dir := range map[string]string{"Koios": ours, "Thanos": theirs} {
			stores[maker+" "+of] = start(t, "store", "--data-dir="+t.TempDir(), "--objstore.config-file="+fleet.BucketConfig(t, dir)).Ready(t)
		}
	}
	for _, of := range []string{"Koios", "Thanos"} {
		t.Run("served from the bucket of "+of, func(t *testing.T) {
			for _, q := range chunkQuestions("eu|us", afterAll) {
				got := held(t, stores["Koios "+of].GRPC, q)
				if diff := cmp.Diff(held(t, stores["Thanos "+of].GRPC, q), got); diff != "" {
					t.Errorf("%s: Thanos's store (-) and ours (+): %s", q, diff)
				}
				if len(got) == 0 {
					t.Errorf("%s: no series", q)
				}
			}
		})
	}
	t.Run("made of one stream", func(t *testing.T) {
		for _, q := range chunkQuestions("us", month.start.Add(14*day-time.Second)) {
			want, got := held(t, stores["Thanos Thanos"].GRPC, q), held(t, stores["Thanos Koios"].GRPC, q)
			if q.resolution > 0 && slices.ContainsFunc(q.aggrs, func(a storepb.Aggr) bool { return a != storepb.Aggr_COUNT && a != storepb.Aggr_SUM }) {
				// The least of nothing but +Inf is the greatest finite number for Thanos, and what infinity grows by is no number.
				maps.DeleteFunc(want, infinite)
				maps.DeleteFunc(got, infinite)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: Thanos's block (-) and ours (+): %s", q, diff)
			}
			for key, chunks := range want {
				if raw := strings.Contains(chunks[0], "raw:"); raw != (q.resolution == 0) {
					t.Fatalf("%s: %s has %s", q, key, chunks[0])
				}
			}
		}
	})
	t.Run("verified", func(t *testing.T) {
		verified(t, thanos, ours)
		verified(t, koios, theirs)
		verified(t, koios, ours)
	})
	t.Run("one after the other", func(t *testing.T) {
		converges(t, ours, thanos, koios)
		converges(t, theirs, koios, thanos)
	})
}

// verified runs a program's verification over a bucket, which must find nothing.
func verified(t *testing.T, program, dir string) {
	t.Helper()
	p := fleet.Start(t, filepath.Base(program)+" verify", program, "tools", "bucket", "verify", "--objstore.config-file="+fleet.BucketConfig(t, dir),
		"--issues=index_known_issues", "--issues=overlapped_blocks", "--issues=duplicated_compaction")
	if code := p.WaitExit(t, 5*time.Minute); code != 0 {
		t.Fatalf("%s ended with %d:\n%s", program, code, p.Log())
	}
	for line := range strings.Lines(p.Log()) {
		// Thanos writes what it finds into its log, ours in lines of their own.
		if !strings.HasPrefix(line, "ts=") || strings.Contains(line, "level=warn") || strings.Contains(line, "level=error") || strings.Contains(line, "detected") {
			t.Errorf("%s found: %s", program, line)
		}
	}
}

// converges runs compactors by turns over a bucket, until it stays as it is; no raw sample comes or goes meanwhile.
func converges(t *testing.T, dir string, programs ...string) {
	t.Helper()
	ask := func() map[string][]string {
		s := startKoios(t, "store", "--data-dir="+t.TempDir(), "--objstore.config-file="+fleet.BucketConfig(t, dir)).Ready(t)
		defer s.Stop(t)
		return held(t, s.GRPC, chunkQuestion{cluster: "eu|us", metric: ".+", end: afterAll})
	}
	raw := ask()
	var seen []map[string]string
	for range 3 {
		for _, p := range programs {
			compactAll(t, p, dir)
			seen = append(seen, blocksOf(t, dir))
		}
	}
	for _, later := range seen[3:] {
		if diff := cmp.Diff(seen[2], later); diff != "" {
			t.Errorf("blocks go on changing: %s", diff)
		}
	}
	if diff := cmp.Diff(raw, ask()); diff != "" {
		t.Errorf("raw chunks before (-) and after (+): %s", diff)
	}
	t.Logf("%d blocks: %v", len(seen[5]), slices.Sorted(maps.Values(seen[5])))
	verified(t, programs[0], dir)
	verified(t, programs[1], dir)
}
