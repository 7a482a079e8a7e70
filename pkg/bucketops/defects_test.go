package bucketops

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/compact"
)

// defect is one seeded fault: how it gets into a bucket, and what it must be called. Each gets labels of its own, so that
// no two overlap.
type defect struct {
	name string
	seed func(w *world, s spec) ulid.ULID
	want []Kind
}

func flip(at func(b []byte) int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at(b)] ^= 0x10
		return b
	}
}

func cut(share float64) func([]byte) []byte {
	return func(b []byte) []byte { return b[:int(share*float64(len(b)))] }
}

// sectionAt is where a part of an index begins, by its number in the table of contents.
func sectionAt(b []byte, i int) int { return int(binary.BigEndian.Uint64(b[len(b)-52+8*i:])) }

// allPostings is where the list of the three series of a block begins.
func allPostings(b []byte) int {
	at := sectionAt(b, 4)
	return at + bytes.Index(b[at:], []byte{0, 0, 0, 16, 0, 0, 0, 3})
}

// reseal makes the checksum of a length-prefixed section right again.
func reseal(b []byte, at int) {
	n := int(binary.BigEndian.Uint32(b[at:]))
	binary.BigEndian.PutUint32(b[at+4+n:], crc32.Checksum(b[at+4:at+4+n], castagnoli))
}

// files seeds a fault into an object of a sound block.
func files(rel string, change func([]byte) []byte) func(*world, spec) ulid.ULID {
	return func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.edit(id, rel, change)
		return id
	}
}

func withMeta(change func(*block.Meta)) func(*world, spec) ulid.ULID {
	return func(w *world, s spec) ulid.ULID {
		s.meta = change
		return w.add(s)
	}
}

func withSeries(series ...seriesSpec) func(*world, spec) ulid.ULID {
	return func(w *world, s spec) ulid.ULID {
		s.series = series
		return w.add(s)
	}
}

// withTimes makes a block of one series whose chunks come in any order. No writer of an index takes that, so it is written
// with other times, far apart, whose numbers are longer, and the numbers are replaced.
func withTimes(cs []chunkSpec) func(*world, spec) ulid.ULID {
	return func(w *world, s spec) ulid.ULID {
		const far = int64(1) << 62
		placed := slices.Clone(cs)
		for i := range placed {
			placed[i].indexMint = -far + int64(i)*far
			placed[i].indexMaxt = placed[i].indexMint + 1<<28
		}
		if len(placed) != 2 {
			w.t.Fatal("two chunks go far apart")
		}
		placed[1].indexMint, placed[1].indexMaxt = far+1<<30, far+1<<30+1<<28
		s.series = []seriesSpec{{named("up"), placed}}
		id := w.add(s)
		w.edit(id, "index", func(b []byte) []byte {
			at := (sectionAt(b, 1) + 15) / 16 * 16
			length, n := binary.Uvarint(b[at:])
			e := b[at+n : at+n+int(length)]
			put := func(v uint64) { // as long as what is there
				_, n := binary.Uvarint(e)
				for i := range n - 1 {
					e[i] = byte(v>>(7*i)) | 0x80
				}
				e[n-1] = byte(v >> (7 * (n - 1)))
				e = e[n:]
			}
			skip := func() uint64 {
				v, n := binary.Uvarint(e)
				e = e[n:]
				return v
			}
			for range 2 * skip() { // labels
				skip()
			}
			skip() // number of chunks
			zigzag := func(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }
			put(zigzag(cs[0].mint))
			put(uint64(cs[0].maxt - cs[0].mint))
			skip()
			put(uint64(cs[1].mint - cs[0].maxt))
			put(uint64(cs[1].maxt - cs[1].mint))
			body := b[at+n : at+n+int(length)]
			binary.BigEndian.PutUint32(b[at+n+int(length):], crc32.Checksum(body, castagnoli))
			return b
		})
		return id
	}
}

// twin adds another block beside a first one.
func twin(first, second func(*block.Meta), series ...seriesSpec) func(*world, spec) ulid.ULID {
	return func(w *world, s spec) ulid.ULID {
		s.meta = first
		w.add(s)
		s.meta = second
		s.series = series
		return w.add(s)
	}
}

var (
	sourceA = ulid.MustParse("01KKBK0T81W0WQYCQNCGA67EQA")
	sourceB = ulid.MustParse("01KKBK0T81W0WQYCQNCGA67EQB")
	sourceC = ulid.MustParse("01KKBK0T81W0WQYCQNCGA67EQC")
)

func from(ids ...ulid.ULID) func(*block.Meta) {
	return func(m *block.Meta) { m.Compaction.Level, m.Compaction.Sources = 2, ids }
}

func other() seriesSpec {
	return seriesSpec{named("other"), spread(base, base+2*hour, 15*second, 0)}
}

// defects are the seeded faults.
var defects = []defect{
	{"sound", (*world).add, nil},
	{"a missing chunk file", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.remove(id, "chunks/000001")
		return id
	}, []Kind{KindChunksMissing}},
	{"a truncated chunk file", files("chunks/000001", cut(0.5)), []Kind{KindChunksTruncated, KindFileSize}},
	{"a flipped byte in a chunk", files("chunks/000001", flip(func(b []byte) int { return len(b) / 2 })), []Kind{KindChunksChecksum}},
	{"a wrong checksum of a chunk", files("chunks/000001", flip(func(b []byte) int { return len(b) - 1 })), []Kind{KindChunksChecksum}},
	{"a chunk file of an unknown version", files("chunks/000001", flip(func([]byte) int { return 4 })), []Kind{KindChunkMalformed}},
	{"a missing index", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.remove(id, "index")
		return id
	}, []Kind{KindIndexMissing}},
	{"a truncated index", files("index", cut(0.7)), []Kind{KindFileSize, KindIndexTruncated}},
	{"a flipped byte in the series of the index", files("index", flip(func(b []byte) int { return (sectionAt(b, 1)+15)/16*16 + 3 })), []Kind{KindIndexChecksum}},
	{"a flipped byte in the symbols", files("index", flip(func(b []byte) int { return sectionAt(b, 0) + 4 + 4 + 3 })), []Kind{KindIndexChecksum}},
	{"a flipped byte in the table of contents", files("index", flip(func(b []byte) int { return len(b) - 20 })), []Kind{KindIndexChecksum}},
	{"an index of an unknown version", files("index", flip(func([]byte) int { return 4 })), []Kind{KindIndexVersion}},
	{"an unsorted posting list", files("index", func(b []byte) []byte {
		at := allPostings(b)
		one, two := b[at+8:at+12], b[at+12:at+16]
		first := slices.Clone(one)
		copy(one, two)
		copy(two, first)
		reseal(b, at)
		return b
	}), []Kind{KindPostings}},
	{"a wrong checksum of a posting list", files("index", flip(func(b []byte) int { return allPostings(b) + 4 + 16 })), []Kind{KindPostings}},
	{"a posting list with the series of another", files("index", func(b []byte) []byte {
		at := sectionAt(b, 4)
		at += bytes.Index(b[at:], []byte{0, 0, 0, 8, 0, 0, 0, 1}) // a list of one series
		binary.BigEndian.PutUint32(b[at+8:], 1<<20)               // a series that is not there
		reseal(b, at)
		return b
	}), []Kind{KindPostingsSeries}},
	{"chunks out of order", withTimes([]chunkSpec{
		{mint: base + hour, maxt: base + 90*minute, step: 15 * second}, {mint: base, maxt: base + 30*minute, step: 15 * second},
	}), []Kind{KindChunkDisorder}},
	{"overlapping chunks", withTimes([]chunkSpec{
		{mint: base, maxt: base + 30*minute, step: 15 * second}, {mint: base + 20*minute, maxt: base + 50*minute, step: 15 * second},
	}), []Kind{KindChunkDisorder}},
	{"a chunk twice", withTimes([]chunkSpec{
		{mint: base, maxt: base + 30*minute, step: 15 * second}, {mint: base, maxt: base + 30*minute, step: 15 * second},
	}), []Kind{KindChunkTwice}},
	{"a chunk beyond the end of the block", withSeries(seriesSpec{named("up"), []chunkSpec{
		{mint: base, maxt: base + 30*minute, step: 15 * second}, {mint: base + hour, maxt: base + 3*hour, step: 15 * second},
	}}), []Kind{KindChunkOutside}},
	{"a chunk before the beginning of the block", withSeries(seriesSpec{named("up"), spread(base-hour, base+hour, 15*second, 0)}), []Kind{KindChunkOutside}},
	{"an index that lies about the times of a chunk", withSeries(seriesSpec{named("up"), []chunkSpec{
		{mint: base, maxt: base + 30*minute, step: 15 * second, indexMaxt: base + 10*minute},
	}}), []Kind{KindChunkTimes}},
	{"a giant label", withSeries(seriesSpec{named("up", "x", strings.Repeat("g", 100<<10)), spread(base, base+2*hour, 15*second, 0)}), []Kind{KindGiantLabel}},
	{"wrong numbers in the metadata", withMeta(func(m *block.Meta) { m.Stats.NumSeries = 17 }), []Kind{KindStats}},
	{"a block of the future", func(w *world, s spec) ulid.ULID {
		s.mint = testNow.Add(24 * time.Hour).UnixMilli()
		s.maxt = s.mint + 2*hour
		return w.add(s)
	}, []Kind{KindFuture}},
	{"an empty block", func(w *world, s spec) ulid.ULID {
		s.series = []seriesSpec{}
		return w.add(s)
	}, []Kind{KindEmptyBlock}},
	{"no external labels", func(w *world, s spec) ulid.ULID {
		s.labels = map[string]string{}
		return w.add(s)
	}, []Kind{KindNoLabels}},
	{"a half upload", func(w *world, s spec) ulid.ULID {
		s.noMeta = true
		return w.add(s)
	}, []Kind{KindPartial}},
	{"a half deletion", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.put(id, block.DeletionMarkFilename, `{"id":"`+id.String()+`","version":1,"deletion_time":1772971200}`)
		w.remove(id, block.MetaFilename)
		return id
	}, []Kind{KindHalfDeleted}},
	{"malformed metadata", files(block.MetaFilename, cut(0.5)), []Kind{KindMetaMalformed}},
	{"metadata with times in the wrong order", withMeta(func(m *block.Meta) { m.MinTime, m.MaxTime = m.MaxTime, m.MinTime }), []Kind{KindMetaMalformed}},
	{"metadata of an unknown version", withMeta(func(m *block.Meta) { m.Version = 2 }), []Kind{KindMetaVersion}},
	{"metadata of another block", withMeta(func(m *block.Meta) { m.ULID = sourceA }), []Kind{KindMetaOther}},
	{"a malformed mark", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.put(id, block.NoCompactMarkFilename, "{")
		return id
	}, []Kind{KindMarkMalformed}},
	{"a block marked and never deleted", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.put(id, block.DeletionMarkFilename, `{"id":"`+id.String()+`","version":1,"deletion_time":1770000000}`)
		return id
	}, []Kind{KindOverdue}},
	{"a block that was set aside", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.put(id, compact.SetAsideFilename, `{}`)
		return id
	}, []Kind{KindSetAside}},
	{"none: a block of old, whose metadata lists no files", withMeta(func(m *block.Meta) { m.Thanos.Files, m.Thanos.SegmentFiles = nil, nil }), nil},
	{"a stray object", func(w *world, s spec) ulid.ULID {
		id := w.add(s)
		w.put(id, "core", "x")
		return id
	}, []Kind{KindStray}},
	{"a duplicate block", twin(nil, nil), []Kind{KindSameBytes}},
	{"a block whose sources are in another", func(w *world, s spec) ulid.ULID {
		s.meta = from(sourceA)
		id := w.add(s)
		s.meta, s.series = from(sourceA, sourceB), []seriesSpec{other()}
		w.add(s)
		return id
	}, []Kind{KindContained}},
	{"an overlap of the same source", twin(from(sourceA, sourceB), from(sourceB, sourceC), other()), []Kind{KindOverlapShared}},
	{"an overlap with a block of the same numbers and lengths", twin(nil, nil,
		seriesSpec{named("up", "job", "apj"), spread(base, base+2*hour, 15*second, 0)},
		seriesSpec{named("up", "job", "dc"), spread(base, base+2*hour, 15*second, 1000)},
		seriesSpec{named("up", "job", "wec"), spread(base, base+2*hour, 15*second, 2000)},
	), []Kind{KindOverlapReal}},
	{"an overlap of different sources", twin(nil, nil, other()), []Kind{KindOverlapReal}},
}

// Doctor calls each of the seeded defects by its name, all in one bucket, and finds no other fault; what each means and
// what mends it is told.
//
// Mutants seen to die: see test/mutants.
func TestDoctorNamesDefects(t *testing.T) {
	if len(defects) < 21 {
		t.Fatalf("%d defects", len(defects))
	}
	w := newWorld(t)
	want := map[string][]Kind{}
	name := map[ulid.ULID]string{}
	for i, d := range defects {
		s := spec{labels: map[string]string{"cluster": d.name, "n": string(rune('a' + i%26))}}
		id := d.seed(w, s)
		name[id] = d.name
		want[d.name] = d.want
	}
	d, err := Diagnose(context.Background(), w.bkt, DoctorConfig{Choice: Choice{Now: now}, Depth: DepthChunks, Concurrency: 4}, quietLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]Kind{}
	for _, f := range d.Faults {
		who := name[f.Block]
		if who == "" {
			who = f.Block.String()
		}
		got[who] = append(got[who], f.Kind)
		if e := f.Kind.Explain(); e.Meaning == "" || e.Mend == "" || e.Severity == "" {
			t.Errorf("%s is not explained", f.Kind)
		}
	}
	for who, kinds := range want {
		slices.Sort(kinds)
		if len(kinds) == 0 {
			delete(want, who)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
		for _, f := range d.Faults {
			t.Log(name[f.Block], f)
		}
	}
	var text strings.Builder
	if err := d.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, f := range d.Faults {
		if !strings.Contains(text.String(), f.String()) {
			t.Errorf("the answer lacks %s", f)
		}
	}
}

// Every kind of fault has an explanation, and every explanation is of a kind that some test seeds or that is listed here.
func TestKindsAreExplained(t *testing.T) {
	seeded := map[Kind]bool{KindUnreadable: true, KindFileMissing: true, KindIndexMalformed: true, KindSeriesUnsorted: true, KindSeriesEmpty: true}
	for _, d := range defects {
		for _, k := range d.want {
			seeded[k] = true
			if explanations[k] == (Explanation{}) {
				t.Errorf("%s is not explained", k)
			}
		}
	}
	for k := range explanations {
		if !seeded[k] {
			t.Errorf("no defect is called %s", k)
		}
	}
}
