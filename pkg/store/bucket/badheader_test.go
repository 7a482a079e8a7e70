package bucket

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
	"github.com/koios-metrics/koios/pkg/store"
)

// Shows what becomes of an index header whose damage is met at a query only: where the bucket has the index it is made
// anew and nothing is missing; where the index is damaged too the block is set aside with its cause in the log, the
// metric and the list, the others answer, with a warning that names the block and its time, and it is served again once
// it is put right.
func TestHeaderDamagedAtQuery(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	dir := t.TempDir()
	open(t, bkt, Config{DataDir: dir}) // the headers are on disk now
	all, _, err := drain(t, open(t, bkt, Config{}), upRequest(store.Abort))
	if err != nil {
		t.Fatal(err)
	}
	want := spell(t, all)

	header := filepath.Join(dir, testID(1).String(), indexheader.Filename)
	good, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 0x55
		return b
	}
	put := func(file string, b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var logged bytes.Buffer
	again := func() *Store {
		t.Helper()
		// A start looks at the ends of the file only.
		put(header, damage(good, len(good)/2))
		s, err := New(bkt, Config{DataDir: dir, IndexHeadersOnUse: true}, log.NewLogfmtLogger(log.NewSyncWriter(&logged)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if err := s.InitialSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(s.SetAside()) > 0 {
			t.Fatalf("damage was seen at the start: %v", s.SetAside())
		}
		return s
	}
	s := again()
	whole := func(what string) {
		t.Helper()
		all, ws, err := drain(t, s, upRequest(store.Abort))
		if err != nil || len(ws) > 0 || len(s.SetAside()) > 0 {
			t.Fatalf("%s: %v %v %v", what, ws, err, s.SetAside())
		}
		if diff := cmp.Diff(want, spell(t, all)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	whole("header on disk")
	if b, err := os.ReadFile(header); err != nil || !bytes.Equal(b, good) {
		t.Errorf("the header on disk is not as it was: %v", err)
	}
	if !strings.Contains(logged.String(), "unusable") || !strings.Contains(logged.String(), testID(1).String()) {
		t.Errorf("logged: %s", &logged)
	}

	name := testID(1).String() + "/index"
	raw := bkt.Objects()[name]
	toc, err := index.NewTOCFromByteSlice(sliceBytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	upload := func(b []byte) {
		t.Helper()
		if err := bkt.Upload(t.Context(), name, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	missing := func(what string) {
		t.Helper()
		logged.Reset()
		all, ws, err := drain(t, s, upRequest(store.Warn))
		var gap *store.Gap
		if err != nil || len(ws) != 1 || !errors.As(ws[0], &gap) || gap.Store != "block "+testID(1).String() || gap.MinTime != 0 || gap.MaxTime != 2000 {
			t.Fatalf("%s: %v %v", what, ws, err)
		}
		if got := spell(t, all); len(got) != 2 || !slices.Contains(want, got[0]) || !slices.Contains(want, got[1]) {
			t.Errorf("%s: %q", what, got)
		}
		aside := s.SetAside()
		if len(aside) != 1 || aside[0].ID != testID(1) || !strings.HasPrefix(aside[0].Cause.Error(), "index_header: ") {
			t.Errorf("%s: set aside: %v", what, aside)
		}
		if n := testutil.ToFloat64(s.metrics.damaged.WithLabelValues("index_header")); n != 1 {
			t.Errorf("%s: counted %v times", what, n)
		}
		if !strings.Contains(logged.String(), "block is damaged") || !strings.Contains(logged.String(), testID(1).String()) {
			t.Errorf("%s: logged: %s", what, &logged)
		}
	}
	later := func() {
		b := s.blocks.Load().byID[testID(1)]
		d := *b.damage.Load()
		d.at = d.at.Add(-damagePause)
		b.damage.Store(&d)
	}
	for part, at := range map[string]uint64{"symbols": toc.Symbols + 10, "postings table": toc.PostingsTable + 10} {
		s = again()
		upload(damage(raw, int(at)))
		missing(part)
		upload(raw)
		later()
		whole(part + " put right")
	}

	// A file that goes bad while it is open.
	s = again()
	whole("before")
	if err := os.Truncate(header, 60); err != nil {
		t.Fatal(err)
	}
	missing("cut while open")
	later()
	whole("fetched again")
	if err := os.Truncate(header, 60); err != nil {
		t.Fatal(err)
	}
	if _, ws, err := s.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "i", MinTime: 0, MaxTime: 4000}); err != nil || len(ws) != 1 {
		t.Errorf("label values of a file cut short: %v %v", ws, err)
	}
}
