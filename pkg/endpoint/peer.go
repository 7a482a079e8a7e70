package endpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/proto/infopb"
)

// Capability is one of the services that a peer can have.
type Capability int

// The capabilities, each of them a gRPC service.
const (
	HasStore Capability = iota
	HasRules
	HasTargets
	HasMetadata
	HasExemplars
	HasQuery
	HasStatus
)

// in tells whether an Info answer announces the capability.
func (c Capability) in(info *infopb.InfoResponse) bool {
	switch c {
	case HasStore:
		return info.GetStore() != nil
	case HasRules:
		return info.GetRules() != nil
	case HasTargets:
		return info.GetTargets() != nil
	case HasMetadata:
		return info.GetMetricMetadata() != nil
	case HasExemplars:
		return info.GetExemplars() != nil
	case HasQuery:
		return info.GetQuery() != nil
	case HasStatus:
		return info.GetStatus() != nil
	}
	return false
}

// Peer is one of the set, as it can be asked now.
type Peer struct {
	Name      string
	Component Component
	// Conn stays open for as long as a query may take after the peer has left the set.
	Conn grpc.ClientConnInterface
	// Description is what its StoreAPI holds.
	Description store.Description
	// Info is what it said last; it must not be changed. Nil of a strict peer that has never answered.
	Info *infopb.InfoResponse
}

// Status is one of the set, as /api/v1/stores lists it. Its JSON is that of the list.
type Status struct {
	Name      string
	Component Component
	// LastCheck is the time of the last answer or failure.
	LastCheck time.Time
	// LastError is why the peer is not asked for data (or, if strict, what to expect); nil of a healthy one.
	LastError        error
	LabelSets        []labels.Labels
	MinTime, MaxTime int64
}

// MarshalJSON implements json.Marshaler.
func (s Status) MarshalJSON() ([]byte, error) {
	var lastError *string
	if s.LastError != nil {
		text := s.LastError.Error()
		lastError = &text
	}
	sets := s.LabelSets
	if sets == nil {
		sets = []labels.Labels{}
	}
	return json.Marshal(struct {
		Name      string          `json:"name"`
		LastCheck time.Time       `json:"lastCheck"`
		LastError *string         `json:"lastError"`
		LabelSets []labels.Labels `json:"labelSets"`
		MinTime   int64           `json:"minTime"`
		MaxTime   int64           `json:"maxTime"`
	}{s.Name, s.LastCheck, lastError, sets, s.MinTime, s.MaxTime})
}

// peer is one of the set.
type peer struct {
	spec   spec
	logger log.Logger
	conn   *grpc.ClientConn
	store  *remote.Store

	mu       sync.Mutex
	info     *infopb.InfoResponse // of the last good answer
	lastGood time.Time            // zero if it has never answered
	// The rounds of asking: the present one, and those of the first and the last good answer.
	round, firstGoodRound, lastGoodRound uint64
	lastCheck                            time.Time // zero before the first round
	lastErr                              error
	// told are the reasons that have been logged of an outage, without their digits: times and ports say nothing new.
	told []string
}

// toldMax bounds the reasons that are logged of one outage.
const toldMax = 8

func newPeer(s spec, conn *grpc.ClientConn, budget *store.Budget, logger log.Logger) *peer {
	logger = log.With(logger, "address", s.name)
	return &peer{
		spec: s, conn: conn, logger: logger,
		store: remote.New(conn, remote.Config{Name: s.name, Group: s.group, Budget: budget, Logger: logger}),
	}
}

// check asks the peer what it has. It waits for the connection, for as long as ctx lasts.
func (p *peer) check(ctx context.Context, timeout time.Duration, round uint64) {
	p.mu.Lock()
	p.round = round
	p.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p.conn.ResetConnectBackoff()
	info, err := infopb.NewInfoClient(p.conn).Info(call, &infopb.InfoRequest{}, grpc.WaitForReady(true))
	if err == nil {
		err = p.store.SetInfo(info)
	}
	if ctx.Err() != nil {
		return // we are leaving: that says nothing about the peer
	}
	p.record(info, err)
}

// record takes in the outcome of a check, and logs it if it is news: each reason once in an outage.
func (p *peer) record(info *infopb.InfoResponse, err error) {
	p.mu.Lock()
	before, checked := p.lastErr, !p.lastCheck.IsZero()
	p.lastCheck, p.lastErr = time.Now(), err
	if err == nil {
		p.info, p.lastGood = info, p.lastCheck
		if p.lastGoodRound = p.round; p.firstGoodRound == 0 {
			p.firstGoodRound = p.round
		}
		p.told = nil
	}
	news := err != nil && p.tellLocked(err)
	p.mu.Unlock()
	switch {
	case news:
		level.Warn(p.logger).Log("msg", "an endpoint does not say what it has", "strict", p.spec.strict, "err", err)
	case err == nil && (before != nil || !checked):
		d := p.store.Describe()
		level.Info(p.logger).Log("msg", "an endpoint has joined", "component", componentOf(info.GetComponentType()), "labelsets", len(d.LabelSets), "mint", d.MinTime, "maxt", d.MaxTime)
	}
}

// tellLocked tells whether an error is to be logged, and takes it for logged.
func (p *peer) tellLocked(err error) bool {
	reason := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, err.Error())
	if slices.Contains(p.told, reason) || len(p.told) == toldMax {
		return false
	}
	p.told = append(p.told, reason)
	return true
}

// queryable tells whether the peer is to be asked for data; the caller holds mu.
func (p *peer) queryableLocked() bool {
	return p.spec.strict || (p.lastErr == nil && !p.lastGood.IsZero())
}

// has returns the peer if it is to be asked and has the capability.
func (p *peer) has(c Capability) (Peer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.queryableLocked() {
		return Peer{}, false
	}
	// A strict peer that has never answered is taken for a Store of everything.
	if neverAnswered := p.info == nil; neverAnswered && c != HasStore || !neverAnswered && !c.in(p.info) {
		return Peer{}, false
	}
	return Peer{Name: p.spec.name, Component: componentOf(p.info.GetComponentType()), Conn: p.conn, Description: p.store.Describe(), Info: p.info}, true
}

// absent returns what the peer holds if it has the capability, is not asked now and was not long ago.
func (p *peer) absent(c Capability, unhealthyTimeout time.Duration) (store.Lost, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queryableLocked() || !c.in(p.info) || time.Since(p.lastGood) > unhealthyTimeout {
		return store.Lost{}, false
	}
	return store.Lost{Description: p.store.Describe(), Err: fmt.Errorf("unhealthy: %w", p.lastErr)}, true
}

// recent tells whether the peer has the capability and was healthy not long ago.
func (p *peer) recent(c Capability, unhealthyTimeout time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.in(p.info) && time.Since(p.lastGood) <= unhealthyTimeout
}

// succeeds tells whether the peer is what another one was, at a new address.
func (p *peer) succeeds(old *peer) bool {
	old.mu.Lock()
	component, last := componentOf(old.info.GetComponentType()), old.lastGoodRound
	old.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.firstGoodRound > last && componentOf(p.info.GetComponentType()) == component &&
		slices.EqualFunc(p.store.Describe().LabelSets, old.store.Describe().LabelSets, labels.Equal)
}

// status returns the peer's line in the list. A peer that has not answered for longer than unhealthyTimeout has
// none, unless it is strict. One that has never answered has one if somebody has written it down, rather than
// discovery found it: what it is, and what it has, is unknown.
func (p *peer) status(unhealthyTimeout time.Duration) (Status, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.info == nil {
		if p.lastErr == nil || p.spec.found {
			return Status{}, false
		}
		return Status{Name: p.spec.name, Component: Unknown, LastCheck: p.lastCheck, LastError: p.lastErr, MinTime: math.MinInt64, MaxTime: math.MaxInt64}, true
	}
	if p.lastErr != nil && !p.spec.strict && time.Since(p.lastGood) > unhealthyTimeout {
		return Status{}, false
	}
	d := p.store.Describe()
	s := Status{
		Name: p.spec.name, Component: componentOf(p.info.GetComponentType()),
		LastCheck: p.lastCheck, LastError: p.lastErr,
		LabelSets: d.LabelSets, MinTime: d.MinTime, MaxTime: d.MaxTime,
	}
	if p.info.GetStore() == nil {
		s.MinTime, s.MaxTime = math.MinInt64, math.MaxInt64
	}
	return s, true
}
