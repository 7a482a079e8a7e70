package federate

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/storepb"
)

// DefaultTimeout is how long one peer may take for its answer.
const DefaultTimeout = 15 * time.Second

// Peers are whom a Federation asks; an endpoint.Set is one. Its methods may be called in parallel.
type Peers interface {
	// Peers returns those to be asked.
	Peers(endpoint.Capability) []endpoint.Peer
	// AbsentOf returns those that would be asked, were they healthy.
	AbsentOf(endpoint.Capability) []store.Lost
}

// Config says how peers are asked and how their answers are merged.
type Config struct {
	// ReplicaLabels tell replicas of the same thing apart; merges take them off.
	ReplicaLabels []string
	// SelectorLabels are the querier's own, by which those above choose it.
	SelectorLabels labels.Labels
	// Timeout is how long one peer may take; 0 is DefaultTimeout. Where the request itself has a deadline,
	// a peer gets nine tenths of the time that is left: what the others said then still reaches the caller.
	Timeout time.Duration
	// Budget is charged with the answers of peers until they are passed on; nil is no bound.
	Budget *store.Budget
	// The strategies of requests over HTTP: an answer with a warning when a peer fails, or none. Requests
	// over gRPC name their own.
	Rules, Targets, Metadata, Exemplars, Status store.PartialResponse
}

// Federation asks peers. Its methods may be called in parallel.
type Federation struct {
	peers Peers
	cfg   Config
}

// New makes a Federation over peers.
func New(peers Peers, cfg Config) *Federation {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Federation{peers: peers, cfg: cfg}
}

// Answer is the merged answer of all peers.
type Answer[T any] struct {
	Data T
	// Warnings say whose part is missing, and what peers warned of.
	Warnings []string

	release func()
}

// Close gives back the memory that the answer was charged with. It is called once.
func (a *Answer[T]) Close() { a.release() }

// strategy turns a choice into its form on the wire.
func strategy(p store.PartialResponse) storepb.PartialResponseStrategy {
	if p == store.Warn {
		return storepb.PartialResponseStrategy_WARN
	}
	return storepb.PartialResponseStrategy_ABORT
}
