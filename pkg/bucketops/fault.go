package bucketops

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// Kind is a kind of fault of a block.
type Kind string

// The kinds of faults. Kind.Explain says what each means and what mends it.
const (
	// Of the metadata and the marks.
	KindPartial       Kind = "partial-upload"
	KindHalfDeleted   Kind = "half-deleted"
	KindMetaMalformed Kind = "malformed-meta"
	KindMetaVersion   Kind = "unknown-meta-version"
	KindMetaOther     Kind = "meta-of-another-block"
	KindUnreadable    Kind = "unreadable"
	KindMarkMalformed Kind = "malformed-mark"
	KindNoLabels      Kind = "no-external-labels"
	KindFuture        Kind = "future-block"
	KindEmptyBlock    Kind = "empty-block"
	KindSetAside      Kind = "set-aside"
	KindOverdue       Kind = "deletion-overdue"
	// Of the files.
	KindFileMissing Kind = "missing-file"
	KindFileSize    Kind = "wrong-size"
	KindStray       Kind = "stray-object"
	// Of the index.
	KindIndexMissing    Kind = "missing-index"
	KindIndexTruncated  Kind = "truncated-index"
	KindIndexChecksum   Kind = "wrong-index-checksum"
	KindIndexMalformed  Kind = "malformed-index"
	KindIndexVersion    Kind = "unknown-index-version"
	KindSeriesUnsorted  Kind = "series-unsorted"
	KindSeriesEmpty     Kind = "empty-series"
	KindPostings        Kind = "postings-unsorted"
	KindPostingsSeries  Kind = "postings-mismatch"
	KindGiantLabel      Kind = "giant-label"
	KindChunkDisorder   Kind = "out-of-order-chunks"
	KindChunkTwice      Kind = "duplicate-chunks"
	KindChunkOutside    Kind = "chunks-outside-of-block"
	KindStats           Kind = "wrong-stats"
	KindChunksMissing   Kind = "missing-chunks"
	KindChunksTruncated Kind = "truncated-chunks"
	KindChunksChecksum  Kind = "wrong-chunk-checksum"
	KindChunkMalformed  Kind = "malformed-chunk"
	KindChunkTimes      Kind = "chunk-times-differ"
	// Between blocks.
	KindSameBytes     Kind = "duplicate-block"
	KindContained     Kind = "contained-block"
	KindOverlapShared Kind = "overlap-of-same-source"
	KindOverlapReal   Kind = "overlap"
)

// Severity says how much a fault matters.
type Severity string

// The severities.
const (
	// SeverityNote is nothing wrong: it goes away by itself, or costs space only.
	SeverityNote Severity = "note"
	// SeverityWarning is data that is there and read, with something about it that a person should know.
	SeverityWarning Severity = "warning"
	// SeverityError is data that can't be read, or is read wrong.
	SeverityError Severity = "error"
)

// Fault is what is wrong with a block.
type Fault struct {
	Block ulid.ULID `json:"block"`
	Kind  Kind      `json:"kind"`
	// Detail is the first place where it was found.
	Detail string `json:"detail,omitempty"`
	// Count is how often it was found in the block.
	Count int `json:"count"`
	// Others are the blocks that it is about besides.
	Others []ulid.ULID `json:"others,omitempty"`
}

func (f Fault) String() string {
	s := fmt.Sprintf("%s %s", f.Block, f.Kind)
	if f.Count > 1 {
		s += fmt.Sprintf(" (%d times)", f.Count)
	}
	if len(f.Others) > 0 {
		var ids []string
		for _, id := range f.Others {
			ids = append(ids, id.String())
		}
		s += " with " + strings.Join(ids, ", ")
	}
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	return s
}

// faults collects those of one block: of each kind the first, and how many. So a block with a million bad chunks costs no
// more than one.
type faults struct {
	id     ulid.ULID
	byKind map[Kind]*Fault
}

func newFaults(id ulid.ULID) *faults { return &faults{id: id, byKind: map[Kind]*Fault{}} }

func (fs *faults) add(k Kind, format string, args ...any) {
	if f := fs.byKind[k]; f != nil {
		f.Count++
		return
	}
	fs.byKind[k] = &Fault{Block: fs.id, Kind: k, Detail: fmt.Sprintf(format, args...), Count: 1}
}

func (fs *faults) has(kinds ...Kind) bool {
	return slices.ContainsFunc(kinds, func(k Kind) bool { return fs.byKind[k] != nil })
}

func (fs *faults) list() (all []Fault) {
	for _, f := range fs.byKind {
		all = append(all, *f)
	}
	sortFaults(all)
	return all
}

func sortFaults(fs []Fault) {
	slices.SortFunc(fs, func(a, b Fault) int { return cmp.Or(a.Block.Compare(b.Block), cmp.Compare(a.Kind, b.Kind)) })
}
