package frontend

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// Config says how a frontend works.
type Config struct {
	// Downstream is where queriers are: the path of a request is appended to its own.
	Downstream *url.URL
	// Transport reaches them; nil is http.DefaultTransport.
	Transport http.RoundTripper
	// Parse reads PromQL as the queriers do, so that what they understand is understood here; nil is Prometheus's parser.
	Parse func(string) (parser.Expr, error)

	Tenancy tenancy.Config
	// OrgHeaders are the headers that may say who asks, the first that is there counts; without any it is the tenant.
	OrgHeaders []string
	// ForwardHeaders go down with each request. They are part of the keys of caches.
	ForwardHeaders []string

	Range    RangeConfig
	Metadata MetadataConfig
	// InstantAttempts is how often an instant query is asked at most; 0 and 1 are once.
	InstantAttempts int

	// AnswerBytesMax bounds an answer of a querier, in bytes; 0 is 1 GiB.
	AnswerBytesMax int64
	// Now is the clock; nil is the machine's.
	Now func() time.Time
}

// RangeConfig says what is done to range queries.
type RangeConfig struct {
	// LengthMax is the longest range, in ms; 0 is any.
	LengthMax int64
	// Align moves start and end down to multiples of the step.
	Align bool
	Split SplitConfig
	// Attempts is how often a part is asked for at most; 0 and 1 are once.
	Attempts int
	// PartialResponse is for requests that don't say.
	PartialResponse bool
	// Cache keeps answers; nil keeps none. What is newer than Freshness is not kept, and nothing for longer than TTL (0: as
	// long as there is room). Compress makes entries smaller.
	Cache     cache.Cache
	Freshness time.Duration
	TTL       time.Duration
	Compress  bool
}

const answerBytesMax = 1 << 30

func (c *Config) setDefaults() error {
	if c.Downstream == nil || c.Downstream.Host == "" || c.Downstream.Scheme != "http" && c.Downstream.Scheme != "https" {
		return errors.New("downstream URL must be http:// or https:// with a host")
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	if c.Parse == nil {
		c.Parse = parser.ParseExpr
	}
	if c.AnswerBytesMax <= 0 {
		c.AnswerBytesMax = answerBytesMax
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Range.Cache != nil && c.Range.Split.Interval <= 0 && (c.Range.Split.Min <= 0 || c.Range.Split.Max <= 0 || c.Range.Split.Shards <= 0) {
		return errors.New("a results cache needs queries to be split: set a split interval")
	}
	return c.Tenancy.Validate()
}
