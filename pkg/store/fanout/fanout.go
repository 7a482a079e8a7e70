// Package fanout is a Store over many: it picks those that can hold what is asked for, asks them at the
// same time and merges their answers.
//
// Of Stores that serve the same blocks one is asked and the others stand by: a standby is asked too when the
// first is late, and goes on where it breaks off. Several that hold all of it between them do so together. The
// members of an endpoint group stand by for each other too.
//
// A Store that does not say which replica a chunk comes from is asked for each replica that it advertises.
//
// A Store that fails or is late costs its own part only, and an answer is judged by the data: it is whole if
// others that have answered serve the same blocks. What only a replica holds is answered with a store.Info.
// Everything else is named by a store.Gap among the warnings, or, where the request wants all or nothing, ends
// the request.
package fanout

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/koios-metrics/koios/pkg/store"
)

// openMaxDefault is the default of Config.OpenMax.
const openMaxDefault = 512

// Config sets up a Store.
type Config struct {
	// Name is how the Store calls itself.
	Name string
	// SelectorLabels are matched by requests and taken out of their matchers, and are added to each
	// advertised label set. Series do not get them.
	SelectorLabels labels.Labels
	// Relabel selects Stores by their advertised label sets, with the actions keep, drop and hashmod.
	Relabel []*relabel.Config
	// ResponseTimeout is the longest wait for each series of a Store, or for its answer to a label call;
	// 0 is forever.
	ResponseTimeout time.Duration
	// Absent returns the Stores that were asked until lately and can't be asked now. An answer that lacks
	// something of theirs is no better than if they had failed. Nil is none; it is called in parallel.
	Absent func() []store.Lost
	// OpenMax bounds the Stores of one request that are opened at once; 0 is 512.
	OpenMax int
}

// Store is a store.Store over many.
type Store struct {
	stores  func() []store.Store
	cfg     Config
	logger  log.Logger
	metrics *metrics
	pace    *pace
	twins   *twins

	mu         sync.RWMutex
	selections map[selectionKey]selection
}

// New makes a Store over whatever stores returns when a request comes. stores is called in parallel.
func New(stores func() []store.Store, cfg Config, logger log.Logger, reg prometheus.Registerer) *Store {
	if cfg.OpenMax <= 0 {
		cfg.OpenMax = openMaxDefault
	}
	return &Store{stores: stores, cfg: cfg, logger: logger, metrics: newMetrics(reg), selections: map[selectionKey]selection{}, pace: newPace(), twins: &twins{seen: map[pairKey]*alike{}}}
}

// errNoStores is what there is to say without any Store.
var errNoStores = store.Errorf(store.KindUnavailable, "No StoreAPIs available") //nolint:staticcheck // clients know this text

var errOnlySelectorMatchers = store.Errorf(store.KindBadRequest, "no matchers specified (excluding selector labels)")

// Series implements store.Store. Each selected Store that is not proven to hold what another one holds too is
// opened, and its first series awaited, at the same time as the others; from then on series are pulled as the
// reader moves.
func (s *Store) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	rest, ok := store.MatchExternal(s.cfg.SelectorLabels, req.Matchers)
	if !ok {
		return store.NewSliceCursor(nil), nil
	}
	if len(rest) == 0 {
		return nil, errOnlySelectorMatchers
	}
	all := s.stores()
	q := question{req.MinTime, req.MaxTime, rest, req.StoreMatchers, req.MaxResolution}
	absent := s.absent(q)
	if len(all) == 0 {
		if req.PartialResponse == store.Abort {
			return nil, errNoStores
		}
		gaps, _ := (&jury{of: s, q: &q}).sentence(absent)
		return store.NewSliceCursor(nil, append(gaps, errNoStores)...), nil
	}
	return s.open(ctx, req, q, perReplica(s.pick(all, q), req), absent)
}

// Describe implements store.Store: the union of what the selected Stores hold. Where one of them holds
// data of unknown labels, the union says so by a set of just the selector labels, or by no sets at all,
// for whoever asks by labels would miss it otherwise.
func (s *Store) Describe() store.Description {
	d := store.Description{Name: s.cfg.Name, Local: true, Replicas: true, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	all := s.stores()
	unknown := len(all) == 0
	blocks := blockUnion{only: len(all) > 0}
	for _, st := range all {
		sd := st.Describe()
		sets, ok := s.SelectLabelSets(sd.LabelSets)
		if !ok {
			continue
		}
		d.MinTime, d.MaxTime = min(d.MinTime, sd.MinTime), max(d.MaxTime, sd.MaxTime)
		if len(sets) == 0 && sd.MinTime <= sd.MaxTime {
			unknown = true
		}
		blocks.add(s, &sd)
		for _, ls := range sets {
			d.LabelSets = append(d.LabelSets, s.extend(ls))
		}
		for _, t := range sd.TSDBs {
			if _, ok := s.relabel(t.Labels); ok {
				d.TSDBs = append(d.TSDBs, store.TSDB{Labels: s.extend(t.Labels), MinTime: t.MinTime, MaxTime: t.MaxTime})
			}
		}
	}
	if len(all) == 0 {
		d.MinTime, d.MaxTime = math.MinInt64, math.MaxInt64
	}
	switch {
	case unknown && s.cfg.SelectorLabels.IsEmpty():
		d.LabelSets = nil
	case unknown:
		d.LabelSets = append(d.LabelSets, s.cfg.SelectorLabels)
	}
	slices.SortFunc(d.LabelSets, labels.Compare)
	d.LabelSets = slices.CompactFunc(d.LabelSets, labels.Equal)
	d.Blocks, d.OnlyBlocks = blocks.sets(), blocks.only
	return d
}

// extend adds the selector labels to an advertised label set.
func (s *Store) extend(ls labels.Labels) labels.Labels {
	if s.cfg.SelectorLabels.IsEmpty() {
		return ls
	}
	b := labels.NewBuilder(ls)
	s.cfg.SelectorLabels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}
