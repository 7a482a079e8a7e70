package endpoint

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/discovery"
	"github.com/koios-metrics/koios/pkg/store"
)

// checksMax bounds the peers that are asked for their Info at once.
const checksMax = 512

// Set is the live set of peers. Its methods but Run may be called in parallel, and before Run: the set is
// empty then.
type Set struct {
	cfg     Config
	logger  log.Logger
	metrics *metrics
	dialer  *dialer
	flags   []entry
	single  *discovery.DNS // names of single peers
	groups  *discovery.DNS // names of groups
	files   *discovery.Files

	look  chan struct{} // wakes the DNS loop
	check chan struct{} // wakes the update loop
	ready chan struct{} // closed after the first full update

	round uint64 // of asking; only the update loop looks at it

	mu       sync.RWMutex
	file     *file
	fileSum  [sha256.Size]byte
	resolved bool // DNS names have been looked up once
	peers    map[string]*peer
	refused  map[string]refusal // settings that make no connection, by peer
	leaving  []leaving
}

// refusal is why no connection could be made of a peer's settings.
type refusal struct {
	err error
	at  time.Time
}

// leaving is a connection of a peer that is no longer in the set, for calls that still run.
type leaving struct {
	spec  spec
	conn  *grpc.ClientConn
	until time.Time
	peer  *peer // to be missed, since nobody has taken it off the configuration; nil if nobody will
}

// New makes a set. Contradictions in the configuration and an endpoint file that can't be read are errors;
// nobody is talked to yet.
func New(cfg Config, logger log.Logger, reg prometheus.Registerer) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Set{
		cfg: cfg, logger: logger, peers: map[string]*peer{}, refused: map[string]refusal{},
		look: make(chan struct{}, 1), check: make(chan struct{}, 1), ready: make(chan struct{}),
	}
	var err error
	if s.flags, err = flags(&cfg); err != nil {
		return nil, err
	}
	if s.file, s.fileSum, err = s.readFile(); err != nil {
		return nil, err
	}
	// Certificates that can't be read are found out here rather than peer by peer.
	if _, err = s.file.DefaultClient.Apply(cfg.Client).DialOptions(logger); err != nil {
		return nil, err
	}
	if s.files, err = discovery.NewFiles(discovery.FilesConfig{
		Patterns: cfg.Files, Interval: cfg.FilesInterval, Changed: func() { wake(s.look) },
	}, logger); err != nil {
		return nil, err
	}
	if s.single, err = discovery.NewDNS(cfg.Resolver, cfg.MetricPrefix+"_endpoints", logger, reg); err != nil {
		return nil, err
	}
	if s.groups, err = discovery.NewDNS(cfg.Resolver, cfg.MetricPrefix+"_endpoint_groups", logger, reg); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(&cfg, reg, s)
	s.dialer = &dialer{
		options: cfg.DialOptions, metrics: s.metrics.client, logger: logger,
		groups: &groupResolver{dns: s.groups, interval: cfg.DNSInterval, logger: logger},
	}
	return s, nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run keeps the set up to date until the context ends; then it closes all connections. It is called once.
func (s *Set) Run(ctx context.Context) error {
	defer s.closeAll()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.files.Run(ctx) })
	g.Go(func() error { return every(ctx, s.cfg.DNSInterval, s.look, s.resolve) })
	g.Go(func() error { return every(ctx, s.cfg.InfoTimeout, s.check, s.update) })
	if s.cfg.SDFile != "" {
		g.Go(func() error { return every(ctx, s.cfg.SDReloadInterval, nil, s.reload) })
	}
	return g.Wait()
}

// every calls f now, at each interval and whenever it is woken, until the context ends.
func every(ctx context.Context, interval time.Duration, woken <-chan struct{}, f func(context.Context)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-woken:
		}
	}
}

// Ready is closed once every configured peer, with all DNS names looked up, has been asked for its Info.
func (s *Set) Ready() <-chan struct{} { return s.ready }

// Stores returns the peers to be asked for series: the healthy ones and the strict ones, by name.
func (s *Set) Stores() []store.Store {
	var stores []store.Store
	for _, p := range s.all() {
		if _, ok := p.has(HasStore); ok {
			stores = append(stores, p.store)
		}
	}
	return stores
}

// Peers returns those to be asked that have a capability, by name.
func (s *Set) Peers(c Capability) []Peer {
	var peers []Peer
	for _, p := range s.all() {
		if q, ok := p.has(c); ok {
			peers = append(peers, q)
		}
	}
	return peers
}

// Absent returns what peers held that were healthy not longer than the unhealthy timeout ago and are not asked
// now: unhealthy ones, and those that discovery has lost, as it loses a peer that has crashed.
func (s *Set) Absent() []store.Lost { return s.AbsentOf(HasStore) }

// AbsentOf is Absent for the peers that have a capability.
func (s *Set) AbsentOf(c Capability) []store.Lost {
	var lost []store.Lost
	for _, p := range s.all() {
		if l, ok := p.absent(c, s.cfg.UnhealthyTimeout); ok {
			lost = append(lost, l)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, l := range s.leaving {
		if l.peer != nil && l.peer.recent(c, s.cfg.UnhealthyTimeout) {
			lost = append(lost, store.Lost{Description: l.peer.store.Describe(), Err: errUndiscovered})
		}
	}
	return lost
}

var errUndiscovered = errors.New("no longer found by discovery")

// Status lists the peers that answer, those that did not long ago, and those that are written down and have
// never answered, with the reason, by name.
func (s *Set) Status() []Status {
	list := []Status{}
	for _, p := range s.all() {
		if st, ok := p.status(s.cfg.UnhealthyTimeout); ok {
			list = append(list, st)
		}
	}
	s.mu.RLock()
	for name, r := range s.refused {
		list = append(list, Status{Name: name, Component: Unknown, LastCheck: r.at, LastError: r.err, MinTime: math.MinInt64, MaxTime: math.MaxInt64})
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// all returns the peers by name.
func (s *Set) all() []*peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*peer, 0, len(s.peers))
	for _, p := range s.peers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int { return cmp.Compare(a.spec.name, b.spec.name) })
	return all
}

// readFile reads the endpoint file, or the content given in its place.
func (s *Set) readFile() (*file, [sha256.Size]byte, error) {
	content := s.cfg.SD
	if s.cfg.SDFile != "" {
		var err error
		if content, err = os.ReadFile(s.cfg.SDFile); err != nil {
			return nil, [sha256.Size]byte{}, fmt.Errorf("read endpoint file: %w", err)
		}
	}
	f, err := parseFile(content, s.cfg.Client)
	return f, sha256.Sum256(content), err
}

// reload takes in the endpoint file if its content has changed. One that is of no use is logged, and the
// endpoints stay as they are.
func (s *Set) reload(context.Context) {
	f, sum, err := s.readFile()
	if err != nil {
		level.Error(s.logger).Log("msg", "the endpoint file is of no use; the endpoints stay as they were", "file", s.cfg.SDFile, "err", err)
		return
	}
	s.mu.Lock()
	changed := sum != s.fileSum
	s.file, s.fileSum = f, sum
	s.mu.Unlock()
	if changed {
		level.Info(s.logger).Log("msg", "the endpoint file has changed", "file", s.cfg.SDFile, "endpoints", len(f.Endpoints))
		wake(s.look)
	}
}

// entries returns all that is configured, later ones standing over earlier ones, and the client settings.
func (s *Set) entries() ([]entry, clientconf.GRPC) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Concat(s.file.Endpoints, s.flags), s.file.DefaultClient.Apply(s.cfg.Client)
}

// resolve looks up the DNS names and has the peers updated.
func (s *Set) resolve(ctx context.Context) {
	lookup, cancel := context.WithTimeout(ctx, s.cfg.DNSInterval)
	defer cancel()
	entries, _ := s.entries()
	if err := s.single.Resolve(lookup, append(dynamic(entries), s.files.Addresses()...)); err != nil && ctx.Err() == nil {
		level.Error(s.logger).Log("msg", "look up endpoints; those that can't be found stay as they were", "err", err)
	}
	s.mu.Lock()
	s.resolved = true
	s.mu.Unlock()
	wake(s.check)
}

// update brings the set to what is desired and asks everyone in it what they have.
func (s *Set) update(ctx context.Context) {
	s.mu.RLock()
	full := s.resolved
	s.mu.RUnlock()

	entries, global := s.entries()
	specs, duplicates := desired(entries, global, find(entries, s.files.Addresses(), s.single))
	s.metrics.duplicates.Add(float64(duplicates))
	s.reconcile(specs)

	s.round++
	var g errgroup.Group
	g.SetLimit(checksMax)
	for _, p := range s.all() {
		g.Go(func() error {
			p.check(ctx, s.cfg.InfoTimeout, s.round)
			return nil
		})
	}
	_ = g.Wait()
	s.forgetReplaced()
	if full && ctx.Err() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.ready:
		default:
			close(s.ready)
		}
	}
}

// reconcile makes connections for new and changed specs, and lets go of those of the others.
func (s *Set) reconcile(specs map[string]spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for name, p := range s.peers {
		if specs[name] == p.spec {
			continue
		}
		level.Info(s.logger).Log("msg", "an endpoint has left", "address", name)
		delete(s.peers, name)
		l := leaving{spec: p.spec, conn: p.conn, until: now.Add(max(s.cfg.QueryTimeout, s.cfg.InfoTimeout, s.cfg.UnhealthyTimeout))}
		if _, changed := specs[name]; p.spec.found && !changed {
			l.peer = p
		}
		s.leaving = append(s.leaving, l)
	}
	refused := map[string]refusal{}
	for name, sp := range specs {
		if s.peers[name] != nil {
			continue
		}
		conn, err := s.dialer.dial(sp)
		if err != nil {
			old, known := s.refused[name]
			if refused[name] = (refusal{err, now}); !known || old.err.Error() != err.Error() {
				level.Error(s.logger).Log("msg", "an endpoint can't be connected to", "address", name, "err", err)
			}
			continue
		}
		s.peers[name] = newPeer(sp, conn, s.cfg.Budget, s.logger)
	}
	s.refused = refused
	s.leaving = slices.DeleteFunc(s.leaving, func(l leaving) bool {
		if l.until.After(now) {
			return false
		}
		_ = l.conn.Close()
		if l.spec.group && s.peers[l.spec.name] == nil {
			s.groups.Forget(l.spec.address)
		}
		return true
	})
}

// forgetReplaced stops to miss peers of which a successor has come: the same component with the same labels,
// first seen after them, as when a pod gets a new address.
func (s *Set) forgetReplaced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.leaving {
		l := &s.leaving[i]
		if l.peer == nil {
			continue
		}
		for _, p := range s.peers {
			if p.succeeds(l.peer) {
				l.peer = nil
				break
			}
		}
	}
}

func (s *Set) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.leaving {
		_ = l.conn.Close()
	}
	for _, p := range s.peers {
		_ = p.conn.Close()
	}
	s.leaving, s.peers = nil, map[string]*peer{}
}
