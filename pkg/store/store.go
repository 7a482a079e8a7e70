package store

import (
	"context"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Store is anything that can be asked for series.
//
// All methods may be called in parallel. A request is never changed by a Store and may be shared
// between several of them. Errors carry a Kind (see KindOf); an error without one is internal.
type Store interface {
	// Series opens a cursor over the series that match req, sorted by final labels (see the package
	// comment). The context bounds the life of the cursor: when it ends, Next returns false and Err its
	// cause. A Store that provably holds nothing for req (an external label or the time range says so)
	// returns an empty cursor and no error.
	//
	// The caller owns the cursor and must close it, also after an error of the cursor itself.
	Series(ctx context.Context, req *SeriesRequest) (Cursor, error)

	// LabelNames returns the names of the labels, external ones included, that series matching req
	// have: sorted, unique, cut to req.Limit, owned by the caller.
	LabelNames(ctx context.Context, req *LabelNamesRequest) ([]string, Warnings, error)

	// LabelValues returns the values that series matching req have for req.Label: sorted, unique, cut
	// to req.Limit, owned by the caller.
	LabelValues(ctx context.Context, req *LabelValuesRequest) ([]string, Warnings, error)

	// Describe says what the Store holds now. It is cheap and does no I/O. What it returns is shared:
	// it must not be changed.
	Describe() Description
}

// Cursor walks over series once, pulled by its reader. No goroutine stands between a cursor and the
// Store behind it unless that Store is remote.
//
// A cursor belongs to one goroutine. The usual loop:
//
//	cur, err := st.Series(ctx, req)
//	if err != nil { … }
//	defer cur.Close()
//	for cur.Next() { use(cur.At()) }
//	if err := cur.Err(); err != nil { … }
//	warn(cur.Warnings())
type Cursor interface {
	// Next moves to the next series; false at the end or at an error.
	Next() bool

	// At returns the current series. The series, its chunk list and the bytes of its chunks are lent:
	// they are valid until the next call of Next or Close (Series.Clone keeps them longer). Its Labels
	// are immutable and may be kept. Consecutive series may have equal labels; nothing else repeats, but
	// that an equal chunk may come again in the name of an earlier replica (see CompareReplicas).
	At() *Series

	// Err returns what ended the cursor early, nil at a regular end.
	Err() error

	// Warnings returns what is missing from, or doubtful in, the series handed out. It is complete once
	// Next has returned false.
	Warnings() Warnings

	// Close releases what the cursor holds. It may be called more than once.
	Close() error
}

// Description says what a Store holds.
type Description struct {
	// LabelSets are the external label sets of what the Store holds, sorted, unique. None means
	// unknown: such a Store is asked for everything.
	LabelSets []labels.Labels
	// MinTime and MaxTime bound the samples held, in ms, both inclusive. A Store that holds nothing has
	// MinTime > MaxTime.
	MinTime, MaxTime int64
	// TSDBs lists the same per external label set, as far as it is known.
	TSDBs []TSDB
	// Name is how warnings and logs call the Store, for example its address.
	Name string
	// Local is true of a Store in this process, which a store matcher on __address__ never selects.
	Local bool
	// Blocks names the blocks that are served, as proof of what is held: two Stores that serve a block hold
	// the same of it. What lies outside MinTime and MaxTime is not served. Nil is no proof.
	Blocks []BlockSet
	// OnlyBlocks is true where all that is held is in Blocks.
	OnlyBlocks bool
	// Replicas is true where Chunk.Replica is told as far as it can be known. Of any other Store a fan-out asks
	// for each advertised replica by itself.
	Replicas bool
	// Labelled is true where every series is known to carry one of LabelSets.
	Labelled bool
	// Group is true of a Store that stands for several endpoints of the same data, one of which gets a
	// request: asked again, it may do better.
	Group bool
}

// BlockSet is the served blocks of one external label set, sorted by id.
type BlockSet struct {
	Labels labels.Labels
	Blocks []Block
	// Parents are what some of Blocks were compacted from, sorted by child: all parents of each of these. Who
	// serves a block holds what its parents held, and who serves all its parents what the block holds.
	Parents []ParentBlock
}

// ParentBlock is one of the blocks that Child was compacted from, or the served part of it: its times are in ms,
// both inclusive. Its resolution is that of the child.
type ParentBlock struct {
	Child, ID        ulid.ULID
	MinTime, MaxTime int64
}

// Block is a served block, or the served part of it: its times and its resolution are in ms, both times
// inclusive.
type Block struct {
	ID               ulid.ULID
	MinTime, MaxTime int64
	Resolution       int64
}

// Lost is a Store that was asked until lately and can't be asked now: what it held, and why.
type Lost struct {
	Description Description
	Err         error
}

// TSDB is one database behind a Store: its external labels and time range in ms, both inclusive.
type TSDB struct {
	Labels           labels.Labels
	MinTime, MaxTime int64
}

// SeriesRequest asks for series. The zero values of all fields but times and matchers mean "no wish".
type SeriesRequest struct {
	// MinTime and MaxTime bound the wanted samples, in ms, both inclusive. Chunks are handed out whole,
	// so samples outside are seen; the reader drops them.
	MinTime, MaxTime int64
	// Matchers must all match the final labels as they are before replica labels are removed. At least
	// one must remain once those on external labels are decided; ErrNoMatchers otherwise.
	Matchers []*labels.Matcher
	// MaxResolution is the coarsest acceptable resolution of downsampled data in ms; 0 is raw only.
	MaxResolution int64
	// Aggregates are those wanted of downsampled chunks. Raw chunks always come raw.
	Aggregates []Aggr
	// SkipChunks asks for labels only.
	SkipChunks bool
	// WithoutReplicaLabels names labels that are removed from every series, stored or external. Series
	// that become equal follow one another.
	WithoutReplicaLabels []string
	// Shard asks for one part of the series; nil is all.
	Shard *Shard
	// Limit is the largest number of series handed out; 0 is no limit.
	Limit int
	// PartialResponse says what becomes of a request when part of the data can't be had.
	PartialResponse PartialResponse
	// BatchSize is the number of series that may travel in one frame on a wire; 0 and 1 are one.
	BatchSize int
	// BlockMatchers select blocks by the label __block_id; only Stores over blocks look at them.
	BlockMatchers []*labels.Matcher
	// StoreMatchers select among the Stores of a fan-out: at least one list must match entirely. Only
	// matchers on __address__ count. None selects all.
	StoreMatchers [][]*labels.Matcher
	// Hints tell what PromQL will do with the series. A Store may ignore them.
	Hints *Hints
}

// LabelNamesRequest asks for label names. Its fields mean what those of SeriesRequest mean; matchers
// may be absent.
type LabelNamesRequest struct {
	MinTime, MaxTime     int64
	Matchers             []*labels.Matcher
	WithoutReplicaLabels []string
	Limit                int
	PartialResponse      PartialResponse
	BlockMatchers        []*labels.Matcher
	StoreMatchers        [][]*labels.Matcher
}

// LabelValuesRequest asks for the values of Label. Its fields mean what those of SeriesRequest mean;
// matchers may be absent.
type LabelValuesRequest struct {
	Label                string
	MinTime, MaxTime     int64
	Matchers             []*labels.Matcher
	WithoutReplicaLabels []string
	Limit                int
	PartialResponse      PartialResponse
	BlockMatchers        []*labels.Matcher
	StoreMatchers        [][]*labels.Matcher
}

// PartialResponse says what becomes of a request when part of the data can't be had.
type PartialResponse int

const (
	// Warn answers with what there is, and a warning for each part that is missing.
	Warn PartialResponse = iota
	// Abort fails the whole request with an error of KindAborted.
	Abort
)

// Shard selects the series whose hash modulo Total is Index. The hash is xxhash64 over name, 0xFF,
// value, 0xFF of every final label that is listed in Labels (By) or not listed (otherwise).
type Shard struct {
	Index, Total int64
	By           bool
	Labels       []string
}

// Hints tell what PromQL will do with the series.
type Hints struct {
	StepMillis  int64
	RangeMillis int64
	Func        string
	By          bool
	Grouping    []string
	// ProjectionLabels are the labels that the query needs (ProjectionInclude) or does not need.
	ProjectionLabels    []string
	ProjectionInclude   bool
	SeriesHashLabelName string
}

// Aggr is one of the aggregates kept in downsampled blocks. The numbers are those of the wire.
type Aggr int

// The aggregates.
const (
	AggrRaw Aggr = iota
	AggrCount
	AggrSum
	AggrMin
	AggrMax
	AggrCounter
)
