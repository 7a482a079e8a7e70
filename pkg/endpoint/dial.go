package endpoint

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-kit/log"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	_ "google.golang.org/grpc/health" // health checks of the members of groups
	"google.golang.org/grpc/keepalive"

	_ "github.com/koios-metrics/koios/pkg/grpcsnappy" // peers are asked for it by name
)

// The settings of each connection. A peer that is silent for keepaliveTime while a call runs is pinged,
// no oftener than servers allow, and given up keepaliveTimeout later.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	backoffMax       = 5 * time.Second
	messageBytesMax  = math.MaxInt32
)

// dialer makes connections.
type dialer struct {
	options []grpc.DialOption
	groups  *groupResolver
	metrics *grpcprom.ClientMetrics
	logger  log.Logger
}

// dial makes the connection of a peer. Nothing is sent yet; errors are those of its settings, such as
// certificates that can't be read.
func (d *dialer) dial(s spec) (*grpc.ClientConn, error) {
	opts, err := s.client.DialOptions(d.logger)
	if err != nil {
		return nil, fmt.Errorf("settings of endpoint %s: %w", s.name, err)
	}
	b := backoff.DefaultConfig
	b.MaxDelay = backoffMax
	opts = append(opts,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: b, MinConnectTimeout: backoffMax}),
		grpc.WithChainUnaryInterceptor(d.metrics.UnaryClientInterceptor()),
		grpc.WithChainStreamInterceptor(d.metrics.StreamClientInterceptor()),
	)
	target := s.name
	switch {
	case s.group:
		opts = append(opts, grpc.WithResolvers(d.groups), grpc.WithDisableServiceConfig(),
			grpc.WithDefaultServiceConfig(cmp.Or(s.service, groupServiceConfig)))
	case !strings.Contains(s.address, ":///") && !strings.HasPrefix(s.address, "unix:"):
		// The name is looked up for each new connection, by the dialler.
		target = "passthrough:///" + s.address
	}
	conn, err := grpc.NewClient(target, append(opts, d.options...)...)
	if err != nil {
		return nil, fmt.Errorf("settings of endpoint %s: %w", s.name, err)
	}
	return conn, nil
}
