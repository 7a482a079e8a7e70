package defects

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block"
)

// fate is what becomes of a bad block in one pass.
type fate string

const (
	// setAside is the mark with the cause, and both of Thanos's marks; the rest of the group is merged around it.
	setAside fate = "set aside"
	// mended is that the merge reads it all the same, and writes it as it should be.
	mended fate = "mended by the merge"
	// collected is the deletion mark, because its data is in another block.
	collected fate = "marked for deletion"
	// deleted is that it is gone.
	deleted fate = "deleted"
	// left is that nothing is done to it, for it can't be told from a block that is somebody's.
	left fate = "left alone, counted"
	// parked is that the group is shown and named, and the exit code is 1.
	parked fate = "group parked and named"
)

// defect is one seeded fault in a group.
type defect struct {
	name string
	seed func(g *group)
	want fate
	// cause is a part of the cause in the mark.
	cause string
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

// Blocks that blocks may be made of.
var (
	sourceA = ulid.MustParse("01KKBK0T81W0WQYCQNCGA67EQA")
	sourceB = ulid.MustParse("01KKBK0T81W0WQYCQNCGA67EQB")
	sourceC = ulid.MustParse("01KKBK0T81W0WQYCQNCGA67EQC")
)

// file seeds a fault into an object of the bad block.
func file(rel string, change func([]byte) []byte) func(*group) {
	return func(g *group) { g.b.edit(g.ids[bad], rel, change) }
}

// missing removes an object of the bad block.
func missing(rel string) func(*group) {
	return func(g *group) { g.b.remove(g.ids[bad], rel) }
}

// instead puts another block in the place of the bad one.
func instead(other func(g *group) spec) func(*group) {
	return func(g *group) { g.replace(other(g)) }
}

func withMeta(change func(*block.Meta)) func(*group) {
	return instead(func(*group) spec { return spec{meta: change} })
}

// from states the sources of a block.
func from(ids ...ulid.ULID) func(*block.Meta) {
	return func(m *block.Meta) { m.Compaction.Level, m.Compaction.Sources = 2, ids }
}

// start is where the bad block of a group begins.
func (g *group) start() int64 { return g.b.base + 2*bad*hour }

// oneSeries is the series of the first job in some chunks, and the others as they should be.
func (g *group) oneSeries(cs ...chunk) []series {
	ss := []series{{job(jobs[0]), cs}}
	for i, j := range jobs[1:] {
		ss = append(ss, series{job(j), whole(i+1, g.start(), g.start()+2*hour)})
	}
	return ss
}

// misordered makes a block whose first series has two chunks in an order or overlap that no writer takes: it is written
// with times far apart, whose numbers are longer, and the numbers are replaced.
func misordered(a, b [2]int64) func(*group) {
	return func(g *group) {
		const far = int64(1) << 62
		cs := []chunk{
			{mint: g.start() + a[0]*minute, maxt: g.start() + a[1]*minute, indexMint: -far, indexMaxt: -far + 1<<28},
			{mint: g.start() + b[0]*minute, maxt: g.start() + b[1]*minute, indexMint: far + 1<<30, indexMaxt: far + 1<<30 + 1<<28},
		}
		id := g.replace(spec{series: g.oneSeries(cs...)})
		g.b.edit(id, block.IndexFilename, func(b []byte) []byte {
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
		g.lostMinutes(0, func(m int64) bool { return (m < a[0] || m > a[1]) && (m < b[0] || m > b[1]) })
	}
}

// lostMinutes notes which minutes of a series of the bad block were never written.
func (g *group) lostMinutes(n int, gone func(m int64) bool) {
	g.without = func(series int, ts int64) bool {
		m := (ts - g.start()) / minute
		return series == n && m >= 0 && m < 120 && gone(m)
	}
}

// resealChunk makes the checksum of the first chunk of a segment right again.
func resealChunk(b []byte) {
	n, w := binary.Uvarint(b[8:])
	body := b[8+w : 8+w+1+int(n)]
	binary.BigEndian.PutUint32(b[8+w+1+int(n):], crc32.Checksum(body, castagnoli))
}

// defects are the seeded faults.
var defects = []defect{
	{"a missing chunk file", missing("chunks/000001"), setAside, "chunks/000001"},
	{"a truncated chunk file", file("chunks/000001", cut(0.5)), setAside, "chunks/000001"},
	{"an empty chunk file", file("chunks/000001", cut(0)), setAside, "chunks/000001"},
	{"a flipped byte in a chunk", file("chunks/000001", flip(func(b []byte) int { return len(b) / 2 })), setAside, "checksum"},
	{"a wrong checksum of a chunk", file("chunks/000001", flip(func(b []byte) int { return len(b) - 1 })), setAside, "checksum"},
	{"a chunk file of an unknown version", file("chunks/000001", flip(func([]byte) int { return 4 })), setAside, "version"},
	{"a chunk of an unknown encoding", file("chunks/000001", func(b []byte) []byte {
		_, w := binary.Uvarint(b[8:])
		b[8+w] = 99
		resealChunk(b)
		return b
	}), setAside, "encoding"},
	{"a missing index", missing(block.IndexFilename), setAside, "index"},
	{"a truncated index", file(block.IndexFilename, cut(0.7)), setAside, "index"},
	{"an empty index", file(block.IndexFilename, cut(0)), setAside, "index"},
	{"an index of an unknown version", file(block.IndexFilename, flip(func([]byte) int { return 4 })), setAside, "version"},
	{"a flipped byte in the series", file(block.IndexFilename, flip(func(b []byte) int { return (sectionAt(b, 1)+15)/16*16 + 3 })), setAside, "index"},
	{"a flipped byte in the symbols", file(block.IndexFilename, flip(func(b []byte) int { return sectionAt(b, 0) + 4 + 4 + 3 })), setAside, "index"},
	{"a flipped byte in the table of contents", file(block.IndexFilename, flip(func(b []byte) int { return len(b) - 20 })), setAside, "index"},
	{"postings that are not sorted", file(block.IndexFilename, func(b []byte) []byte {
		at := allPostings(b)
		one, two := b[at+8:at+12], b[at+12:at+16]
		first := slices.Clone(one)
		copy(one, two)
		copy(two, first)
		reseal(b, at)
		return b
	}), mended, ""},
	{"a wrong checksum of postings", file(block.IndexFilename, flip(func(b []byte) int { return allPostings(b) + 4 + 16 })), mended, ""},
	{"postings of a series that is not there", file(block.IndexFilename, func(b []byte) []byte {
		at := sectionAt(b, 4)
		at += bytes.Index(b[at:], []byte{0, 0, 0, 8, 0, 0, 0, 1}) // a list of one series
		binary.BigEndian.PutUint32(b[at+8:], 1<<20)
		reseal(b, at)
		return b
	}), mended, ""},
	{"chunks out of order", misordered([2]int64{60, 119}, [2]int64{0, 59}), mended, ""},
	{"chunks that overlap", misordered([2]int64{0, 70}, [2]int64{50, 119}), mended, ""},
	{"a chunk twice", misordered([2]int64{0, 119}, [2]int64{0, 119}), mended, ""},
	{"a chunk beyond the end of its block", instead(func(g *group) spec {
		return spec{series: g.oneSeries(chunk{mint: g.start(), maxt: g.start() + 119*minute}, chunk{mint: g.start() + 120*minute, maxt: g.start() + 150*minute})}
	}), mended, ""},
	{"a chunk before the beginning of its block", instead(func(g *group) spec {
		return spec{series: g.oneSeries(chunk{mint: g.start() - 30*minute, maxt: g.start() - 1}, chunk{mint: g.start(), maxt: g.start() + 119*minute})}
	}), mended, ""},
	{"an index that lies about the times of a chunk", instead(func(g *group) spec {
		return spec{series: g.oneSeries(chunk{mint: g.start(), maxt: g.start() + 119*minute, indexMaxt: g.start() + 50*minute})}
	}), mended, ""},
	{"a giant label", func(g *group) {
		giant := labels.FromStrings(model.MetricNameLabel, "up", "job", "zzz", "x", strings.Repeat("g", 1<<20))
		g.replace(spec{series: append(g.oneSeries(chunk{mint: g.start(), maxt: g.start() + 119*minute}), series{giant, whole(7, g.start(), g.start()+2*hour)})})
		g.gains(giant.String(), 7)
	}, mended, ""},
	{"wrong numbers in the metadata", withMeta(func(m *block.Meta) { m.Stats.NumSeries, m.Stats.NumSamples = 17, 1 }), mended, ""},
	{"wrong lengths of files in the metadata", withMeta(func(m *block.Meta) {
		for i := range m.Thanos.Files {
			m.Thanos.Files[i].SizeBytes += 5
		}
	}), mended, ""},
	{"an empty block", instead(func(g *group) spec { return spec{series: []series{}} }), collected, ""},
	{"a block of the future", func(g *group) {
		at := g.b.now.Add(30 * 24 * time.Hour).Truncate(2 * time.Hour).UnixMilli()
		g.add(spec{mint: at, maxt: at + 2*hour})
	}, setAside, "future"},
	{"a half upload", missing(block.MetaFilename), left, ""},
	{"an upload cut off in its metadata", file(block.MetaFilename, cut(0.5)), left, ""},
	{"a half deletion", func(g *group) {
		id := g.ids[bad]
		g.b.put(id, block.DeletionMarkFilename, fmt.Sprintf(`{"id":%q,"version":1,"deletion_time":%d}`, id, g.b.now.Add(-100*time.Hour).Unix()))
		g.b.remove(id, block.MetaFilename)
	}, deleted, ""},
	{"metadata with times in the wrong order", withMeta(func(m *block.Meta) { m.MinTime, m.MaxTime = m.MaxTime, m.MinTime }), setAside, "minTime"},
	{"metadata of an unknown version", withMeta(func(m *block.Meta) { m.Version = 7 }), setAside, "version"},
	{"metadata of another block", withMeta(func(m *block.Meta) { m.ULID[15] ^= 1 }), setAside, "block"},
	{"a malformed mark", func(g *group) { g.b.put(g.ids[bad], block.NoCompactMarkFilename, "{") }, mended, ""},
	{"a duplicate of a block", func(g *group) { g.add(spec{meta: from(g.ids[bad])}) }, collected, ""},
	{"a block whose sources are in another", func(g *group) {
		g.add(spec{mint: g.b.base, maxt: g.b.base + 4*hour, meta: from(g.ids[0], g.ids[1])})
	}, collected, ""},
	{"an overlap of the same source", func(g *group) {
		g.replace(spec{meta: from(sourceA, sourceB)})
		g.add(spec{meta: from(sourceB, sourceC)})
	}, mended, ""},
	{"an overlap of different sources", func(g *group) {
		g.add(spec{series: []series{{job("other"), whole(9, g.start(), g.start()+2*hour)}}})
		g.gains(job("other").String(), 9)
	}, parked, "overlap"},
	{"a block inside another, of a different source", func(g *group) {
		g.add(spec{mint: g.start() + 30*minute, maxt: g.start() + 60*minute, series: []series{{job("other"), whole(9, g.start()+30*minute, g.start()+60*minute)}}})
		g.gainsFrom(job("other").String(), 9, g.start()+30*minute, g.start()+60*minute)
	}, parked, "overlap"},
}
