package block

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"google.golang.org/protobuf/encoding/protowire"
)

// parquetDescription is a meta.pb about blocks, with other fields before and behind.
func parquetDescription(ids ...ulid.ULID) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	for _, id := range ids {
		b = protowire.AppendString(protowire.AppendTag(b, parquetBlocksField, protowire.BytesType), id.String())
	}
	return protowire.AppendString(protowire.AppendTag(b, 9, protowire.BytesType), "other")
}

// Shows which blocks are hidden: those that were converted, and of these only those whose days are covered as a whole;
// that what can't be read converts nothing; that a description which did not change is read once; and that a bucket that
// can't be listed fails the look.
func TestParquetConverted(t *testing.T) {
	const day = int64(24 * 3600_000)
	const first = 19_700 * day
	parquet := &requestsBucket{faultyBucket{Bucket: objstore.NewInMemBucket()}}
	filter := NewParquetConverted(parquet, 2, log.NewNopLogger())
	all := func() map[ulid.ULID]*Meta {
		ms := map[ulid.ULID]*Meta{}
		add := func(n byte, from, to int64) {
			m := newMeta(testID(n))
			m.MinTime, m.MaxTime = from, to
			ms[m.ULID] = m
		}
		add(1, first, first+day/2) // a day in two parts
		add(2, first+day/2, first+day)
		add(3, first+day, first+2*day-3600_000) // a day with a hole at its end
		add(4, first+2*day, first+4*day)        // two days
		add(5, first+4*day, first+5*day)
		add(6, -day, 0) // before the epoch
		add(7, first+5*day, first+6*day+1)
		return ms
	}
	look := func(what string, want []int, requests map[string]int) {
		t.Helper()
		ms, hidden := all(), map[ulid.ULID]*Meta{}
		parquet.take()
		err := filter.Filter(t.Context(), ms, func(id ulid.ULID, s State) {
			if s != StateParquetConverted {
				t.Errorf("%s: %s", id, s)
			}
			hidden[id] = newMeta(id)
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, shortIDs(hidden)); diff != "" {
			t.Errorf("%s: hidden (-want +got):\n%s", what, diff)
		}
		if len(ms)+len(hidden) != 7 {
			t.Errorf("%s: %d blocks are left", what, len(ms))
		}
		if diff := cmp.Diff(requests, parquet.take()); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", what, diff)
		}
	}
	look("nothing converted", []int{}, map[string]int{"iter": 1})
	put(t, parquet, "2023/12/09/"+parquetMetaFilename, string(parquetDescription(testID(1))))
	put(t, parquet, "2023/12/09/0.labels.parquet", "x")
	look("half a day", []int{}, map[string]int{"iter": 1, "get": 1})
	put(t, parquet, "other/"+parquetMetaFilename, string(parquetDescription(testID(2), testID(3), testID(4), testID(6), testID(99))))
	look("the rest", []int{1, 2, 4, 6}, map[string]int{"iter": 1, "get": 1})
	look("nothing new", []int{1, 2, 4, 6}, map[string]int{"iter": 1})
	put(t, parquet, "bad/"+parquetMetaFilename, "\xff")
	put(t, parquet, "worse/"+parquetMetaFilename, string(protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), "no block")))
	look("malformed", []int{1, 2, 4, 6}, map[string]int{"iter": 1, "get": 2})
	look("malformed and not written again", []int{1, 2, 4, 6}, map[string]int{"iter": 1})
	put(t, parquet, "more/"+parquetMetaFilename, string(parquetDescription(testID(5), testID(7))))
	look("a day and a millisecond", []int{1, 2, 4, 5, 6}, map[string]int{"iter": 1, "get": 1})
	if err := parquet.Delete(t.Context(), "other/"+parquetMetaFilename); err != nil {
		t.Fatal(err)
	}
	look("taken away", []int{5}, map[string]int{"iter": 1})

	broken := NewParquetConverted(unlistable{parquet}, 2, log.NewNopLogger())
	if err := broken.Filter(t.Context(), all(), func(ulid.ULID, State) { t.Error("a block was hidden") }); !errors.Is(err, errUnlistable) {
		t.Errorf("a bucket that can't be listed: %v", err)
	}
}

var errUnlistable = errors.New("no listing today")

type unlistable struct{ objstore.BucketReader }

func (unlistable) IterWithAttributes(context.Context, string, func(objstore.IterObjectAttributes) error, ...objstore.IterOption) error {
	return errUnlistable
}

// Shows that no bytes break the reader of descriptions, and that it names blocks only.
func FuzzParseParquetMeta(f *testing.F) {
	f.Add(parquetDescription())
	f.Add(parquetDescription(testID(1), testID(2)))
	f.Add([]byte("\x32\x03abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := parseParquetMeta(b)
		if err != nil && (ids != nil || !errors.Is(err, errParquetMeta)) {
			t.Errorf("%v, %v", ids, err)
		}
	})
}

// Shows that blocks of tenants below prefixes of one bucket are apart: each view has its own, and the one of the bucket
// as a whole has those at its root.
func TestTenantPrefixes(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	for n, prefix := range []string{"", "team-a", "teams/b"} {
		below := objstore.NewPrefixedBucket(bkt, prefix)
		putMeta(t, below, newMeta(testID(byte(10+n))))
		put(t, below, Object(testID(byte(10+n)), IndexFilename), "x")
		putMeta(t, below, newMeta(testID(byte(20+n))))
		if _, err := MarkForDeletion(t.Context(), below, testID(byte(20+n)), "", time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for n, prefix := range []string{"", "team-a", "teams/b"} {
		for _, discovery := range []Discovery{DiscoverConcurrent, DiscoverRecursive} {
			below := objstore.NewPrefixedBucket(bkt, prefix)
			f, err := NewFetcher(below, FetcherConfig{
				Discovery: discovery, CacheDir: t.TempDir(), Filters: []Filter{NewDeletionMarks(below, 0, 2, log.NewNopLogger())},
			}, log.NewNopLogger(), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			v, err := f.Fetch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]int{10 + n}, shortIDs(v.Metas)); diff != "" {
				t.Errorf("%q, %s: blocks (-want +got):\n%s", prefix, discovery, diff)
			}
			if len(v.Partial)+len(v.Failed) > 0 {
				t.Errorf("%q, %s: %v %v", prefix, discovery, v.Partial, v.Failed)
			}
		}
	}
}
