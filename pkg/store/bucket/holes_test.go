package bucket

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// ruin cuts the index of a block, so that the block can't be loaded.
func ruin(t testing.TB, bkt objstore.Bucket, n byte) {
	t.Helper()
	if err := bkt.Upload(t.Context(), testID(n).String()+"/index", strings.NewReader("cut")); err != nil {
		t.Fatal(err)
	}
}

// Shows which requests are told of a block that is set aside: those that it has labels and time for, at a resolution
// that they read, unless blocks made from the same sources answer in its place. (Killed: mutants that take any
// block of the group for one of the same sources, and that leave out the resolution.)
func TestHoles(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	raw := []handSeries{{ls("__name__", "up"), []handChunk{xorChunk(10, 10, 1, 2)}}}
	x := xorData(10, 10, 1, 2)
	coarse := []handSeries{{ls("__name__", "up"), []handChunk{aggregateChunk(10, 20, x, x, x, x, x)}}}
	for _, b := range []handBlock{
		{n: 1, mint: 0, maxt: 1000, external: ls("r", "a"), series: raw},
		{n: 2, mint: 1000, maxt: 2000, external: ls("r", "a"), series: raw}, // nobody else has it
		{n: 3, mint: 2000, maxt: 3000, external: ls("r", "a"), series: raw}, // one of 5m has it
		{n: 4, mint: 2000, maxt: 3000, external: ls("r", "a"), series: coarse, sources: []byte{3}, resolution: 300_000},
		{n: 5, mint: 3000, maxt: 4000, external: ls("r", "a"), series: raw},
		{n: 6, mint: 3000, maxt: 4000, external: ls("r", "a"), series: coarse, sources: []byte{5}, resolution: 300_000}, // the raw one has it
		{n: 7, mint: 0, maxt: 1000, external: ls("r", "b"), series: raw, sources: []byte{1}},                            // another group has the sources
		{n: 8, mint: 4000, maxt: 5000, external: ls("r", "b"), series: raw},
		{n: 9, mint: 0, maxt: 1000, external: ls("r", "c"), series: coarse, resolution: 300_000},
	} {
		b.write(t, bkt)
	}
	for _, n := range []byte{2, 3, 6, 7, 9} {
		ruin(t, bkt, n)
	}
	s := open(t, bkt, Config{})
	finest := open(t, bkt, Config{AsFineAsAsked: true})
	all := []store.Aggr{store.AggrCount, store.AggrSum}
	f := func(what string, s *Store, edit func(*store.SeriesRequest), want ...byte) {
		t.Helper()
		req := &store.SeriesRequest{MinTime: 0, MaxTime: 10_000, Matchers: []*labels.Matcher{eq("__name__", "up")}, PartialResponse: store.Warn, Aggregates: all}
		edit(req)
		_, ws, err := drain(t, s, req)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var got []byte
		for _, w := range ws.Doubts() {
			var gap *store.Gap
			if !errors.As(w, &gap) {
				t.Fatalf("%s: %v", what, w)
			}
			for n := range byte(10) {
				if gap.Store == "block "+testID(n).String() {
					got = append(got, n)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	f("raw", finest, func(*store.SeriesRequest) {}, 2, 3, 7)
	f("5m", finest, func(r *store.SeriesRequest) { r.MaxResolution = 300_000 }, 2, 7, 9)
	f("raw or coarser", s, func(*store.SeriesRequest) {}, 2, 7, 9)
	f("raw chunks", s, func(r *store.SeriesRequest) { r.Aggregates = nil }, 2, 3, 7)
	f("before", s, func(r *store.SeriesRequest) { r.MaxTime = 999 }, 7, 9)
	f("at its end", s, func(r *store.SeriesRequest) { r.MinTime = 2000 })
	f("within", s, func(r *store.SeriesRequest) { r.MinTime, r.MaxTime = 1999, 1999 }, 2)
	f("other labels", s, func(r *store.SeriesRequest) { r.Matchers = append(r.Matchers, eq("r", "b")) }, 7)
	f("one block", s, func(r *store.SeriesRequest) {
		r.BlockMatchers = []*labels.Matcher{eq(block.IDLabel, testID(2).String())}
	}, 2)

	req := &store.LabelValuesRequest{Label: "__name__", MinTime: 1500, MaxTime: 1600}
	if _, ws, err := s.LabelValues(t.Context(), req); err != nil || len(ws) != 1 || !strings.Contains(ws[0].Error(), testID(2).String()) {
		t.Errorf("label values: %v %v", ws, err)
	}
	req.PartialResponse = store.Abort
	if _, _, err := s.LabelValues(t.Context(), req); store.KindOf(err) != store.KindAborted {
		t.Errorf("label values, all or nothing: %v", err)
	}

	// Nobody would ask for what is not described.
	d := s.Describe()
	if want := []labels.Labels{ls("r", "a"), ls("r", "b"), ls("r", "c")}; !slices.EqualFunc(d.LabelSets, want, labels.Equal) {
		t.Errorf("described labels: %v", d.LabelSets)
	}
	for _, set := range d.Blocks {
		for _, b := range set.Blocks {
			if slices.Contains([]byte{2, 3, 6, 7, 9}, b.ID[15]) {
				t.Errorf("block %s is said to be served", b.ID)
			}
		}
	}
	alone := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 500, maxt: 1000, external: ls("r", "a"), series: raw}.write(t, alone)
	ruin(t, alone, 1)
	d = open(t, alone, Config{}).Describe()
	if d.MinTime != 500 || d.MaxTime != 1000 || len(d.LabelSets) != 1 || len(d.TSDBs) != 1 || len(d.Blocks) != 0 {
		t.Errorf("described: %+v", d)
	}
}

// Shows that of many blocks that are set aside an answer names some, and says of the others how many there are, of
// which labels and when.
func TestManyHoles(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	for n := range byte(gapsNamed + 5) {
		series := []handSeries{{ls("__name__", "up"), []handChunk{xorChunk(10, 10, 1)}}}
		handBlock{n: n + 1, mint: int64(n) * 100, maxt: int64(n+1) * 100, external: ls("r", string('a'+rune(n%4))), series: series}.write(t, bkt)
		ruin(t, bkt, n+1)
	}
	_, ws, err := drain(t, open(t, bkt, Config{}), upRequest(store.Warn))
	if err != nil || len(ws) != gapsNamed+1 {
		t.Fatal(ws, err)
	}
	var gap *store.Gap
	if !errors.As(ws[gapsNamed], &gap) || gap.Store != "5 more blocks" || len(gap.LabelSets) != 4 || gap.MinTime != gapsNamed*100 || gap.MaxTime != (gapsNamed+5)*100 {
		t.Errorf("%v", ws[gapsNamed])
	}
}

// Shows that a block whose meta.json is of a version that is not known is set aside with what it says, but only where it
// would be served.
func TestUnknownVersion(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	name := testID(1).String() + "/meta.json"
	b := bkt.Objects()[name]
	if err := bkt.Upload(t.Context(), name, bytes.NewReader(bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 7`), 1))); err != nil {
		t.Fatal(err)
	}
	f := func(what string, cfg Config, want bool) {
		t.Helper()
		s := open(t, bkt, cfg)
		aside := s.SetAside()
		_, ws, err := drain(t, s, upRequest(store.Warn))
		if err != nil || (len(aside) == 1) != want || (len(ws) == 1) != want {
			t.Fatalf("%s: %v %v %v", what, aside, ws, err)
		}
		if want && (aside[0].Meta == nil || aside[0].Meta.MaxTime != 2000 || !strings.Contains(aside[0].Cause.Error(), "version is 7") || !strings.Contains(ws[0].Error(), "version is 7")) {
			t.Errorf("%s: %v %v", what, aside, ws)
		}
	}
	f("all", Config{}, true)
	f("later ones", Config{MinTime: func() int64 { return 2500 }}, false)
	f("one shard", Config{Selector: []*relabel.Config{{
		SourceLabels: model.LabelNames{"r"}, Regex: relabel.MustNewRegexp("b"), Action: relabel.Keep, Separator: ";", NameValidationScheme: model.UTF8Validation,
	}}}, false)
}
