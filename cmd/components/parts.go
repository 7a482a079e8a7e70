package components

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"
	thanosobjstore "github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/objstore/resilient"
	"github.com/koios-metrics/koios/pkg/query/api"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/store/wire"

	// Servers answer snappy to whoever asks in it.
	_ "github.com/koios-metrics/koios/pkg/grpcsnappy"
)

// status is what the process tells about itself.
func (p *process) status() api.Status {
	return api.Status{Flags: p.flags.status(), Started: p.started}
}

// userAgent is how this program presents itself over HTTP.
func userAgent() string { return "Koios/" + version.Version }

// bucket opens the bucket of a configuration, nil if there is none.
func (p *process) bucket(c *content) (thanosobjstore.InstrumentedBucket, error) {
	bkt, err := p.openBucket(c, p.reg)
	if bkt != nil {
		p.close(bkt.Close)
	}
	return bkt, err
}

// bucketBeside opens a second bucket. Its metrics begin with a prefix, for the buckets may have the same name.
func (p *process) bucketBeside(c *content, prefix string) (thanosobjstore.InstrumentedBucket, error) {
	bkt, err := p.openBucket(c, prometheus.WrapRegistererWithPrefix(prefix, p.reg))
	if bkt != nil {
		p.close(bkt.Close)
	}
	return bkt, err
}

// resilientBucket opens the bucket of a component that mostly reads it: what fails is tried again, what is late is asked
// a second time.
func (p *process) resilientBucket(c *content) (*resilient.Bucket, error) {
	bkt, err := p.openBucket(c, p.reg)
	if err != nil {
		return nil, err
	}
	if bkt == nil {
		return nil, fmt.Errorf("flag --%s: it is empty", c.name)
	}
	r := resilient.New(bkt, p.reg)
	p.close(r.Close)
	return r, nil
}

func (p *process) openBucket(c *content, reg prometheus.Registerer) (thanosobjstore.InstrumentedBucket, error) {
	text, err := c.read()
	if err != nil || len(text) == 0 {
		return nil, err
	}
	bkt, err := objstore.New(p.logger, text, reg, p.component)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.name, err)
	}
	return bkt, nil
}

// addHTTP makes the HTTP server; handlers may be added to it until the process runs.
func (p *process) addHTTP(cfg serve.HTTPConfig, requestLog *content) (*serve.HTTP, error) {
	var err error
	if cfg.RequestLog, err = readRequestLog(requestLog); err != nil {
		return nil, err
	}
	cfg.Tracing = p.tracing
	s, err := serve.NewHTTP(cfg, p.logger, p.reg, p.probe)
	if err != nil {
		return nil, fmt.Errorf("flag --http.config: %w", err)
	}
	if err := s.Listen(); err != nil {
		return nil, err
	}
	p.serve(s.Run)
	return s, nil
}

// addGRPC makes the gRPC server with its services.
func (p *process) addGRPC(cfg serve.GRPCConfig, requestLog *content, register ...func(*grpc.Server)) error {
	var err error
	if cfg.RequestLog, err = readRequestLog(requestLog); err != nil {
		return err
	}
	cfg.Tracing = p.tracing
	cfg.Options = append(cfg.Options, grpc.ForceServerCodecV2(wire.Codec{}))
	s, err := serve.NewGRPC(cfg, p.logger, p.reg, p.probe, register...)
	if err != nil {
		return err
	}
	if err := s.Listen(); err != nil {
		return err
	}
	p.serve(s.Run)
	return nil
}
