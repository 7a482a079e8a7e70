package block

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
)

// requestsBucket counts every request by operation.
type requestsBucket struct {
	faultyBucket
}

func (b *requestsBucket) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, o ...objstore.IterOption) error {
	if err := b.note("iter", dir); err != nil {
		return err
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, o...)
}

func (b *requestsBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if err := b.note("attributes", name); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

// take returns the requests since the last call.
func (b *requestsBucket) take() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[string]int{}
	for _, l := range b.log {
		op, _, _ := strings.Cut(l, " ")
		n[op]++
	}
	b.log = nil
	return n
}

// Shows, counting every request, that a bucket which did not change costs one listing and no reads, that each new block
// and each new mark costs one read, that a mark which was taken away counts no more, and that a restart with its cache
// reads marks only. (Killed: a mutant that takes no notice of the time a mark was written; one that forgets malformed
// marks.)
func TestRequests(t *testing.T) {
	bkt := &requestsBucket{faultyBucket{Bucket: objstore.NewInMemBucket()}}
	inmem := bkt.Bucket.(*objstore.InMemBucket)
	for n := range byte(20) {
		putMeta(t, bkt, newMeta(testID(n)))
		put(t, bkt, Object(testID(n), "index"), "x")
	}
	cache := t.TempDir()
	newView := func() (*Fetcher, *DeletionMarks, *NoCompactMarks) {
		marks, no := NewDeletionMarks(bkt, 0, 2, log.NewNopLogger()), NewNoCompactMarks(bkt, 2, log.NewNopLogger())
		f, _ := newFetcher(t, bkt, FetcherConfig{CacheDir: cache, Filters: []Filter{marks, no, NewNoDownsampleMarks(bkt, 2, log.NewNopLogger())}})
		return f, marks, no
	}
	f, marks, no := newView()
	look := func(what string, want map[string]int, blocks int) {
		t.Helper()
		bkt.take()
		v, err := f.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, bkt.take()); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", what, diff)
		}
		if len(v.Metas) != blocks {
			t.Errorf("%s: %d blocks, want %d", what, len(v.Metas), blocks)
		}
	}
	look("empty disk", map[string]int{"iter": 1, "get": 20}, 20)
	look("nothing new", map[string]int{"iter": 1}, 20)

	now := time.Now()
	mark := func(_ bool, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mark(MarkForDeletion(t.Context(), bkt, testID(1), "", now.Add(-time.Hour)))
	mark(MarkForDeletion(t.Context(), bkt, testID(2), "", now.Add(time.Hour)))
	mark(MarkForNoCompact(t.Context(), bkt, testID(3), NoCompactManual, "", now))
	put(t, bkt, Object(testID(4), DeletionMarkFilename), "{")
	putMeta(t, bkt, newMeta(testID(20)))
	look("four marks and a block", map[string]int{"iter": 1, "get": 5}, 20)
	look("nothing new", map[string]int{"iter": 1}, 20)
	if len(marks.Marks()) != 2 || len(no.Marks()) != 1 {
		t.Errorf("marks %v, %v", marks.Marks(), no.Marks())
	}

	if err := RemoveMark(t.Context(), bkt, testID(1), DeletionMarkFilename); err != nil {
		t.Fatal(err)
	}
	put(t, bkt, Object(testID(2), DeletionMarkFilename), fmt.Sprintf(`{"version":1,"deletion_time":%d}`, now.Add(-time.Hour).Unix()))
	if err := inmem.ChangeLastModified(Object(testID(2), DeletionMarkFilename), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	look("one mark less, one written again", map[string]int{"iter": 1, "get": 1}, 20)

	f, _, _ = newView()
	look("restart", map[string]int{"iter": 1, "get": 3}, 20)
}

// Shows that listing all objects is given up where there are too many of them, once, that blocks are found all the
// same, and that marks are then looked for.
func TestRequestsWide(t *testing.T) {
	bkt := &requestsBucket{faultyBucket{Bucket: objstore.NewInMemBucket()}}
	for i := range objectsFree + 2*objectsPerBlockMax + 1 {
		put(t, bkt, fmt.Sprintf("0/%d", i), "") // sorts before the blocks
	}
	putMeta(t, bkt, newMeta(testID(1)))
	putMeta(t, bkt, newMeta(testID(2)))
	if _, err := MarkForDeletion(t.Context(), bkt, testID(2), "", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	f, err := NewFetcher(bkt, FetcherConfig{Filters: []Filter{NewDeletionMarks(bkt, 0, 2, log.NewNopLogger())}}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []map[string]int{{"iter": 2, "get": 4}, {"iter": 1, "exists": 2, "get": 2}} {
		bkt.take()
		v, err := f.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, bkt.take()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int{1}, shortIDs(v.Metas)); diff != "" {
			t.Errorf("blocks (-want +got):\n%s", diff)
		}
	}
}
