package tracing

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"go.opentelemetry.io/contrib/samplers/jaegerremote"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.yaml.in/yaml/v2"
	"golang.org/x/time/rate"
)

// jaegerConfig is the config part of type JAEGER. rpc_metrics, disabled, traceid_128bit,
// reporter_log_spans and the reconnecting keys are accepted and mean nothing here.
type jaegerConfig struct {
	ServiceName   string  `yaml:"service_name"`
	Tags          string  `yaml:"tags"`
	SamplerType   string  `yaml:"sampler_type"`
	SamplerParam  float64 `yaml:"sampler_param"`
	SamplerHost   string  `yaml:"sampler_manager_host_port"`
	SamplerMaxOps int     `yaml:"sampler_max_operations"`
	SamplerParent struct {
		Local  bool `yaml:"local_parent_sampled"`
		Remote bool `yaml:"remote_parent_sampled"`
	} `yaml:"sampler_parent_config"`
	SamplerRefresh     time.Duration `yaml:"sampler_refresh_interval"`
	SamplingServerURL  string        `yaml:"sampling_server_url"`
	LateBinding        bool          `yaml:"operation_name_late_binding"`
	InitialSamplerRate float64       `yaml:"initial_sampler_rate"`
	QueueSize          int           `yaml:"reporter_max_queue_size"`
	FlushInterval      time.Duration `yaml:"reporter_flush_interval"`
	Endpoint           string        `yaml:"endpoint"`
	User               string        `yaml:"user"`
	Password           string        `yaml:"password"`
	AgentHost          string        `yaml:"agent_host"`
	AgentPort          int           `yaml:"agent_port"`
}

func newJaeger(content []byte, logger log.Logger) (*part, error) {
	var c jaegerConfig
	if err := yaml.Unmarshal(content, &c); err != nil {
		return nil, err
	}
	tags, err := jaegerTags(c.Tags)
	if err != nil {
		return nil, err
	}
	p := &part{serviceName: c.ServiceName, attributes: tags, jaegerHeader: true}
	if p.sampler, p.close, err = c.sampler(logger); err != nil {
		return nil, err
	}
	if c.QueueSize > 0 {
		p.batch = append(p.batch, sdktrace.WithMaxQueueSize(c.QueueSize))
	}
	if c.FlushInterval > 0 {
		p.batch = append(p.batch, sdktrace.WithBatchTimeout(c.FlushInterval))
	}
	if c.Endpoint != "" {
		p.exporter, err = newJaegerCollector(c.Endpoint, c.User, c.Password)
		return p, err
	}
	host, port := c.AgentHost, c.AgentPort
	if host == "" {
		host = "localhost"
	}
	if port == 0 {
		port = 6831
	}
	return nil, fmt.Errorf("a Jaeger agent (%s) is %w: give the collector as endpoint, for example http://%s/api/traces",
		net.JoinHostPort(host, strconv.Itoa(port)), errUnsupported, net.JoinHostPort(host, "14268"))
}

func (c *jaegerConfig) sampler(logger log.Logger) (sdktrace.Sampler, func(), error) {
	var root sdktrace.Sampler
	var stop func()
	switch strings.ToLower(c.SamplerType) {
	case "remote":
		r, err := c.remoteSampler()
		if err != nil {
			return nil, nil, err
		}
		root, stop = r, r.Close
	case "probabilistic":
		root = sdktrace.TraceIDRatioBased(c.SamplerParam)
	case "const":
		root = sdktrace.NeverSample()
		if c.SamplerParam == 1 {
			root = sdktrace.AlwaysSample()
		}
	case "", "ratelimiting":
		root = newRateSampler(c.SamplerParam)
	default:
		return nil, nil, fmt.Errorf("unknown sampler_type %q: want remote, probabilistic, const or ratelimiting", c.SamplerType)
	}
	if c.SamplerType == "" && c.SamplerParam == 0 {
		_ = level.Warn(logger).Log("msg", "tracing samples nothing unless a request forces it: sampler_type is empty (ratelimiting) and sampler_param is 0")
	}
	var opts []sdktrace.ParentBasedSamplerOption
	if c.SamplerParent.Local {
		opts = append(opts, sdktrace.WithLocalParentSampled(root))
	}
	if c.SamplerParent.Remote {
		opts = append(opts, sdktrace.WithRemoteParentSampled(root))
	}
	return sdktrace.ParentBased(root, opts...), stop, nil
}

func (c *jaegerConfig) remoteSampler() (*jaegerremote.Sampler, error) {
	u := c.SamplingServerURL
	if u == "" && c.SamplerHost != "" {
		u = "http://" + c.SamplerHost + "/sampling"
	}
	var opts []jaegerremote.Option
	if u != "" {
		if _, err := url.Parse(u); err != nil {
			return nil, fmt.Errorf("sampling_server_url: %w", err)
		}
		opts = append(opts, jaegerremote.WithSamplingServerURL(u))
	}
	if c.SamplerMaxOps > 0 {
		opts = append(opts, jaegerremote.WithMaxOperations(c.SamplerMaxOps))
	}
	if c.SamplerRefresh > 0 {
		opts = append(opts, jaegerremote.WithSamplingRefreshInterval(c.SamplerRefresh))
	}
	initial := c.InitialSamplerRate
	if initial == 0 {
		initial = 0.001
	}
	opts = append(opts, jaegerremote.WithOperationNameLateBinding(c.LateBinding), jaegerremote.WithInitialSampler(sdktrace.TraceIDRatioBased(initial)))
	return jaegerremote.New(c.ServiceName, opts...), nil
}

// rateSampler lets through so many traces a second, one at least in a burst.
type rateSampler struct {
	perSecond float64
	limiter   *rate.Limiter
}

func newRateSampler(perSecond float64) *rateSampler {
	burst := max(1, int(perSecond))
	if perSecond <= 0 {
		burst = 0
	}
	return &rateSampler{perSecond: perSecond, limiter: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

func (s *rateSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if !s.limiter.Allow() {
		return sdktrace.NeverSample().ShouldSample(p)
	}
	return sdktrace.AlwaysSample().ShouldSample(p)
}

func (s *rateSampler) Description() string {
	return fmt.Sprintf("RateLimiting{%g}", s.perSecond)
}

var envTag = regexp.MustCompile(`^\$\{([^:}]+)(?::(.*))?\}$`)

// jaegerTags reads "k=v,k=${ENV:default}".
func jaegerTags(s string) (tags []attribute.KeyValue, err error) {
	for pair := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, errors.New("tags: " + strconv.Quote(pair) + " is no key=value")
		}
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if m := envTag.FindStringSubmatch(v); m != nil {
			v = m[2]
			if e := os.Getenv(m[1]); e != "" {
				v = e
			}
		}
		tags = append(tags, attribute.String(k, v))
	}
	return tags, nil
}
