package endpoint

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"google.golang.org/grpc/resolver"

	"github.com/koios-metrics/koios/pkg/discovery"
)

// groupServiceConfig spreads calls over the members of a group that say they are healthy (those without a
// health service count as healthy), and tries a call that no member has taken up yet on others.
const groupServiceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "healthCheckConfig": {"serviceName": ""},
  "methodConfig": [{
    "name": [{}],
    "retryPolicy": {
      "maxAttempts": 3,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// reresolveMin is the shortest pause between two lookups of a group, however often gRPC asks for one.
const reresolveMin = time.Second

// groupResolver tells gRPC the members of groups. It is the resolver.Builder of their connections only.
type groupResolver struct {
	dns interface {
		Refresh(ctx context.Context, addr string) ([]string, error)
	}
	interval time.Duration
	logger   log.Logger
}

// Scheme implements resolver.Builder.
func (g *groupResolver) Scheme() string { return groupScheme }

// OverrideAuthority names the group in TLS and in the :authority header by what is looked up, without
// prefixes.
func (g *groupResolver) OverrideAuthority(target resolver.Target) string {
	return discovery.Authority(target.Endpoint())
}

// Build implements resolver.Builder.
func (g *groupResolver) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &groupWatch{groupResolver: g, address: target.Endpoint(), cc: cc, now: make(chan struct{}, 1), cancel: cancel}
	r.wg.Go(func() { r.run(ctx) })
	return r, nil
}

// groupWatch looks up one group again and again.
type groupWatch struct {
	*groupResolver
	address string
	cc      resolver.ClientConn
	now     chan struct{}
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func (r *groupWatch) run(ctx context.Context) {
	for {
		r.resolve(ctx)
		last := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.interval):
		case <-r.now:
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(last.Add(reresolveMin))):
			}
		}
	}
}

// resolve tells gRPC the members. A lookup that fails or finds nobody leaves the members as they are.
func (r *groupWatch) resolve(ctx context.Context) {
	lookup, cancel := context.WithTimeout(ctx, r.interval)
	defer cancel()
	addrs, err := r.dns.Refresh(lookup, r.address)
	if ctx.Err() != nil {
		return
	}
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("%s resolves to nothing", r.address)
	}
	if err != nil {
		level.Error(r.logger).Log("msg", "look up the members of an endpoint group; they stay as they were", "group", r.address, "err", err)
		r.cc.ReportError(err)
		return
	}
	st := resolver.State{}
	for _, a := range addrs {
		st.Endpoints = append(st.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	if err := r.cc.UpdateState(st); err != nil {
		level.Warn(r.logger).Log("msg", "the members of an endpoint group are of no use to gRPC", "group", r.address, "err", err)
	}
}

// ResolveNow implements resolver.Resolver. gRPC calls it when connections break.
func (r *groupWatch) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case r.now <- struct{}{}:
	default:
	}
}

// Close implements resolver.Resolver.
func (r *groupWatch) Close() {
	r.cancel()
	r.wg.Wait()
}
