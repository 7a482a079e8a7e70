package frontend

import (
	"errors"
	"fmt"
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
	// Shards is into how many shards of their series range and instant queries are cut, where that is known to be right;
	// 0 and 1 cut nothing.
	Shards int
	// Queue bounds what is asked of the queriers at a time.
	Queue QueueConfig

	// ForceStats asks queriers for the statistics of each query, for the log and for the header Server-Timing.
	ForceStats bool
	// SlowQuery is the time past which a request is logged; 0 logs none, and what is negative all. The user in the log is
	// that of SlowQueryUserHeader, if set, else of basic authentication.
	SlowQuery           time.Duration
	SlowQueryUserHeader string

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
	// Downsampled asks for what is missing at the beginning of an answer at coarser resolutions, where a request leaves
	// the resolution open.
	Downsampled bool
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
	if c.Metadata.Cache != nil && c.Metadata.SplitMs <= 0 {
		return errors.New("a cache of labels needs requests to be split: set a split interval for labels")
	}
	if s := c.Range.Split; s.Interval < 0 || s.Min < 0 || s.Max < 0 || s.Shards < 0 {
		return errors.New("a split interval is negative")
	}
	if c.Shards < 0 || c.Shards > shardsMax {
		return fmt.Errorf("%d shards: from 0 to %d are possible", c.Shards, shardsMax)
	}
	if err := c.Queue.Validate(); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return c.Tenancy.Validate()
}
