// Package remote is a Store at the other end of a gRPC connection: a sidecar, a store gateway, a querier,
// of Koios or of Thanos.
//
// What a peer sends is checked before it is believed: the labels and chunks of every frame, the order of
// the series, and that replica labels are gone. Peers that say they can remove replica labels also sort by
// what remains, so their answers stream. The answers of other, older ones are held and sorted here, within
// a Budget; so are those of a peer that was caught breaking its word.
package remote

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// Config says who the peer is and what may be spent on it.
type Config struct {
	// Name is how errors, warnings and logs call the peer, most often its address. The target of the
	// connection can't be asked for it.
	Name string
	// Group is true of a connection that leads to several endpoints of the same data (see store.Description).
	Group bool
	// Budget is charged with the answers that are held for sorting; nil is no bound. Peers may share one.
	Budget *store.Budget
	// Logger is told once when the peer is caught breaking its word. Nil is silence.
	Logger log.Logger
}

// frameBytesMax is the largest frame that is received: as much as Thanos's servers send.
const frameBytesMax = math.MaxInt32

// Store is a peer. All methods may be called in parallel.
type Store struct {
	cc     grpc.ClientConnInterface
	client storepb.StoreClient
	config Config

	peer      atomic.Pointer[peer]
	unordered atomic.Bool
}

var _ store.Store = (*Store)(nil)

// New makes a Store of a connection, which stays the caller's. Until SetInfo is called the peer is taken
// to hold anything and to be able to do nothing but answer.
func New(cc grpc.ClientConnInterface, config Config) *Store {
	if config.Logger == nil {
		config.Logger = log.NewNopLogger()
	}
	s := &Store{cc: cc, client: storepb.NewStoreClient(cc), config: config}
	s.peer.Store(&peer{description: store.Description{Name: config.Name, Group: config.Group, MinTime: math.MinInt64, MaxTime: math.MaxInt64, Replicas: true}})
	return s
}

// SetInfo takes in what the peer says about itself. An error says what in it makes no sense; the Store
// then keeps what it knew.
func (s *Store) SetInfo(info *infopb.InfoResponse) error {
	p, err := readInfo(s.config.Name, info)
	if err != nil {
		return err
	}
	p.description.Group = s.config.Group
	s.peer.Store(p)
	return nil
}

// Describe implements store.Store.
func (s *Store) Describe() store.Description { return s.peer.Load().description }

// Unordered tells whether the peer was caught sending series out of order or with replica labels, so that
// its answers are sorted here since.
func (s *Store) Unordered() bool { return s.unordered.Load() }

// Series implements store.Store. No goroutine of ours waits for frames: they are received as the cursor
// is moved, and gRPC's flow control holds the peer back meanwhile.
func (s *Store) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	p := s.peer.Load()
	ask := *req
	if !p.withoutReplicaLabels {
		ask.WithoutReplicaLabels = nil
	}
	sharded := req.Shard != nil && req.Shard.Total >= 1
	if sharded && !p.sharding {
		// A limit counts what is left after choosing.
		ask.Shard, ask.Limit = nil, 0
	}
	m, err := wire.EncodeSeriesRequest(&ask)
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.cc.NewStream(tenancy.Outgoing(ctx), &storepb.Store_ServiceDesc.Streams[0], storepb.Store_Series_FullMethodName,
		grpc.ForceCodecV2(wire.Codec{}), grpc.MaxCallRecvMsgSize(frameBytesMax))
	if err == nil {
		if err = stream.SendMsg(m); err == nil {
			err = stream.CloseSend()
		}
	}
	if err != nil {
		err = s.error(ctx, "ask %s for series", err)
		cancel()
		return nil, err
	}

	in := &cursor{ctx: ctx, cancel: cancel, peer: s, stream: stream, abort: req.PartialResponse == store.Abort, without: req.WithoutReplicaLabels}
	in.frame.SkipChunks = req.SkipChunks
	var cur store.Cursor = in
	// Asked for labels only, Thanos's sidecar leaves replica labels in where they are stored.
	if forgets := req.SkipChunks && len(req.WithoutReplicaLabels) > 0; p.withoutReplicaLabels && !forgets && !s.unordered.Load() {
		in.checked = true
	} else {
		cur = &sorted{in: in, budget: s.config.Budget}
	}
	if sharded {
		// Also when the peer has chosen: Thanos's sidecar does not in every mode, and choosing twice is
		// choosing once.
		cur = store.Where(cur, func(se *store.Series) bool { return req.Shard.Selects(se.Labels) })
	}
	return store.Limit(cur, req.Limit), nil
}

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	p := s.peer.Load()
	m, err := wire.EncodeLabelNamesRequest(req)
	if err != nil {
		return nil, nil, err
	}
	hide := !p.withoutReplicaLabels && len(req.WithoutReplicaLabels) > 0
	if hide {
		m.Limit = 0
	}
	r, err := s.client.LabelNames(tenancy.Outgoing(ctx), m, grpc.MaxCallRecvMsgSize(frameBytesMax))
	if err != nil {
		return nil, nil, s.error(ctx, "fetch label names from %s", err)
	}
	names := r.GetNames()
	if hide {
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(req.WithoutReplicaLabels, n) && p.external(n) })
	}
	ws, err := s.warnings(r.GetWarnings(), req.PartialResponse)
	return tidy(names, req.Limit), ws, err
}

// LabelValues implements store.Store.
func (s *Store) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if req.Label != "" && slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return nil, nil, nil
	}
	m, err := wire.EncodeLabelValuesRequest(req)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.client.LabelValues(tenancy.Outgoing(ctx), m, grpc.MaxCallRecvMsgSize(frameBytesMax))
	if err != nil {
		return nil, nil, s.error(ctx, "fetch label values from %s", err)
	}
	ws, err := s.warnings(r.GetWarnings(), req.PartialResponse)
	return tidy(r.GetValues(), req.Limit), ws, err
}

// warnings takes over the texts of a peer: as they are, since callers look for codes in them. A request
// that wants all or nothing is failed by any.
func (s *Store) warnings(texts []string, p store.PartialResponse) (store.Warnings, error) {
	var ws store.Warnings
	for _, text := range texts {
		w := store.ReadWarning(text)
		if p == store.Abort && !store.IsInfo(w) {
			return nil, s.refused(text)
		}
		ws = append(ws, w)
	}
	return ws, nil
}

// tidy makes a list of a peer sorted, unique and no longer than limit.
func tidy(list []string, limit int) []string {
	if !slices.IsSorted(list) {
		slices.Sort(list)
	}
	list = slices.Compact(list)
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

// peer is what a peer said about itself last.
type peer struct {
	description store.Description
	// sharding and withoutReplicaLabels tell what it does itself.
	sharding, withoutReplicaLabels bool
}

// leaves are the components that put one of the label sets that they advertise on every series. A querier
// only passes on what others advertise, which some of them may not do at all.
var leaves = []string{"sidecar", "store", "receive", "rule"}

// external tells whether a label is an external one of everything the peer holds.
func (p *peer) external(name string) bool {
	sets := p.description.LabelSets
	return len(sets) > 0 && !slices.ContainsFunc(sets, func(ls labels.Labels) bool { return !ls.Has(name) })
}

// readInfo makes a peer of its Info answer.
func readInfo(name string, info *infopb.InfoResponse) (*peer, error) {
	st := info.GetStore()
	p := &peer{
		description:          store.Description{Name: name, MinTime: math.MaxInt64, MaxTime: math.MinInt64},
		sharding:             st.GetSupportsSharding(),
		withoutReplicaLabels: st.GetSupportsWithoutReplicaLabels(),
	}
	if st != nil {
		p.description.MinTime, p.description.MaxTime = st.GetMinTime(), st.GetMaxTime()
	}
	var err error
	if p.description.LabelSets, err = wire.DecodeLabelSets(info.GetLabelSets()); err != nil {
		return nil, store.Errorf(store.KindInternal, "label sets of %s: %w", name, err)
	}
	for _, t := range st.GetTsdbInfos() {
		ls, err := wire.DecodeLabels(t.GetLabels().GetLabels())
		if err != nil {
			return nil, store.Errorf(store.KindInternal, "databases of %s: %w", name, err)
		}
		p.description.TSDBs = append(p.description.TSDBs, store.TSDB{Labels: ls, MinTime: t.GetMinTime(), MaxTime: t.GetMaxTime()})
	}
	// What sorted removes it names.
	p.description.Replicas = st.GetChunksNameReplicas() || !p.withoutReplicaLabels
	p.description.Labelled = len(p.description.LabelSets) > 0 && slices.Contains(leaves, info.GetComponentType())
	p.description.OnlyBlocks = st.GetOnlyBlocks()
	for _, set := range st.GetBlockSets() {
		blocks, err := readBlocks(set)
		if err != nil {
			return nil, store.Errorf(store.KindInternal, "blocks of %s: %w", name, err)
		}
		p.description.Blocks = append(p.description.Blocks, blocks)
	}
	return p, nil
}

// readBlocks takes in blocks of a peer.
func readBlocks(set *infopb.BlockSet) (out store.BlockSet, err error) {
	if out.Labels, err = wire.DecodeLabels(set.GetLabels().GetLabels()); err != nil {
		return out, err
	}
	out.Blocks = make([]store.Block, len(set.GetBlocks()))
	for i, b := range set.GetBlocks() {
		to := &out.Blocks[i]
		if err := readID(&to.ID, b.GetId()); err != nil {
			return out, err
		}
		to.MinTime, to.MaxTime, to.Resolution = b.GetMinTime(), b.GetMaxTime(), b.GetResolution()
	}
	slices.SortFunc(out.Blocks, func(a, b store.Block) int { return a.ID.Compare(b.ID) })
	for _, p := range set.GetParents() {
		to := store.ParentBlock{MinTime: p.GetMinTime(), MaxTime: p.GetMaxTime()}
		if err := errors.Join(readID(&to.Child, p.GetChild()), readID(&to.ID, p.GetId())); err != nil {
			return out, err
		}
		out.Parents = append(out.Parents, to)
	}
	slices.SortStableFunc(out.Parents, func(a, b store.ParentBlock) int { return a.Child.Compare(b.Child) })
	return out, nil
}

// readID takes in the id of a block.
func readID(to *ulid.ULID, b []byte) error {
	if len(b) != len(to) {
		return fmt.Errorf("%x is no id of a block", b)
	}
	copy(to[:], b)
	return nil
}
