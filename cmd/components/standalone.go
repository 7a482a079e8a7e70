package components

import (
	"os"
	"time"

	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/standalone"
)

// standaloneFlags is the command line of standalone.
type standaloneFlags struct {
	http       serve.HTTPConfig
	grpc       serve.GRPCConfig
	requestLog content
	objstore   content

	dataDir       string
	configFile    string
	retention     time.Duration
	blockDuration time.Duration

	engine        string
	timeout       time.Duration
	maxConcurrent int
	memory        uint64
	answers       uint64
	replicaLabels []string
	disableCORS   bool
}

// Standalone is everything in one process.
func Standalone() Component {
	return Component{
		name: "standalone",
		help: "Scrape, keep and answer PromQL in one process over one folder.",
		bind: func(fs *flags) runner {
			c := &standaloneFlags{}
			c.bind(fs)
			return c.run
		},
	}
}

func (c *standaloneFlags) bind(fs *flags) {
	httpFlags(fs, &c.http)
	grpcFlags(fs, &c.grpc)
	requestLogFlags(fs, &c.requestLog)
	objstoreFlags(fs, &c.objstore, false)
	fs.string(&c.dataDir, "data-dir", standalone.DefaultDataDir, "Folder that everything is kept in; made if it is not there.")
	fs.string(&c.configFile, "config.file", "", "Path of a prometheus.yml whose scrape_configs are used, read again on SIGHUP and POST /-/reload. Without one, Koios scrapes itself.")
	fs.goDuration(&c.retention, "tsdb.retention", standalone.DefaultRetention.String(), "How long a block stays in the TSDB once it is served from the bucket.")
	fs.goDuration(&c.blockDuration, "tsdb.block-duration", standalone.DefaultBlockDuration.String(), "Time that a block covers. For tests: leave it.").Hidden()
	fs.enum(&c.engine, "query.promql-engine", "thanos", "PromQL engine of requests that name none: thanos is the fast one, and leaves what it is known to be wrong about to prometheus.", "prometheus", "thanos")
	fs.promDuration(&c.timeout, "query.timeout", "2m", "How long one query may take.")
	fs.int(&c.maxConcurrent, "query.max-concurrent", "20", "Number of queries that are worked on at a time; others wait.")
	fs.bytes(&c.memory, "query.max-memory", "1GB", "Memory for the series and chunks of all queries together; a query past it is refused.")
	fs.bytes(&c.answers, "query.max-kept-answers", "100MB", "Memory for the answers to range queries that are kept, so that what is asked again is not evaluated again; 0 keeps none.")
	fs.strings(&c.replicaLabels, "query.replica-label", "Label that tells replicas of the same data apart; series that differ in it alone are deduplicated (repeatable).")
	fs.bool(&c.disableCORS, "web.disable-cors", false, "Leave out the headers that let pages of other origins use the API.")
}

// run builds standalone, which does the rest by itself.
func (c *standaloneFlags) run(p *process) error {
	cfg, err := c.config(p)
	if err != nil {
		return err
	}
	s, err := standalone.New(cfg, p.probe, p.logger, p.reg)
	if err != nil {
		return err
	}
	p.serve(s.Run)
	p.reload = s.Reload
	return nil
}

func (c *standaloneFlags) config(p *process) (standalone.Config, error) {
	cfg := standalone.Config{
		DataDir:        c.dataDir,
		ScrapeFile:     c.configFile,
		BlockDuration:  c.blockDuration,
		Retention:      c.retention,
		MemoryBytesMax: int64(c.memory),
		AnswerBytesMax: int64(c.answers),
		HTTP:           c.http,
		GRPC:           c.grpc,
		Greeting:       os.Stdout,
	}
	cfg.Query.Engine, cfg.Query.Timeout, cfg.Query.MaxConcurrent = c.engine, c.timeout, c.maxConcurrent
	cfg.API.ReplicaLabels, cfg.API.DisableCORS = c.replicaLabels, c.disableCORS
	cfg.API.Status.Flags = p.flags.status()

	var err error
	if cfg.Bucket, err = c.objstore.read(); err != nil {
		return cfg, err
	}
	if cfg.HTTP.RequestLog, err = readRequestLog(&c.requestLog); err != nil {
		return cfg, err
	}
	cfg.GRPC.RequestLog = cfg.HTTP.RequestLog
	cfg.HTTP.Tracing, cfg.GRPC.Tracing = p.tracing, p.tracing
	return cfg, nil
}
