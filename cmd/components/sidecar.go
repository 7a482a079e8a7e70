package components

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/reloader"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/shipper"
	"github.com/koios-metrics/koios/pkg/sidecar"
)

// sidecarFlags is the command line of the sidecar.
type sidecarFlags struct {
	http       serve.HTTPConfig
	grpc       serve.GRPCConfig
	requestLog content
	objstore   content
	limits     storeLimits
	minTime    timeOrDuration

	prometheusURL     *url.URL
	readyTimeout      time.Duration
	getConfigInterval time.Duration
	getConfigTimeout  time.Duration
	prometheusClient  content

	tsdbPath     string
	metaFileName string
	hashFunc     string

	uploadCompacted        bool
	uploadConcurrency      int
	allowOutOfOrder        bool
	ignoreUnequalBlockSize bool
	skipCorrupted          bool
	reloaderConfigFile     string
	reloaderEnvsubstFile   string
	reloaderRuleDirs       []string
	reloaderWatchInterval  time.Duration
	reloaderRetryInterval  time.Duration
	reloaderMethod         string
	reloaderProcessName    string
}

// Sidecar is the component next to one Prometheus: it answers for it and uploads its blocks.
func Sidecar() Component {
	return Component{
		name: "sidecar",
		help: "Answer queries for one Prometheus, next to which it runs, and upload its finished blocks to object storage.",
		bind: func(fs *flags) runner {
			c := &sidecarFlags{}
			c.bind(fs)
			return c.run
		},
	}
}

func (c *sidecarFlags) bind(fs *flags) {
	httpFlags(fs, &c.http)
	grpcFlags(fs, &c.grpc)
	requestLogFlags(fs, &c.requestLog)
	objstoreFlags(fs, &c.objstore, false)
	c.limits.bind(fs)
	fs.timeOrDuration(&c.minTime, "min-time", "0000-01-01T00:00:00Z", "Earliest time that queries are answered for: RFC 3339, or a duration from now such as -6w.")

	fs.url(&c.prometheusURL, "prometheus.url", "http://localhost:9090", "Where Prometheus's API is reached, with its route prefix.")
	fs.goDuration(&c.readyTimeout, "prometheus.ready_timeout", "10m", "How long Prometheus may take to answer for the first time.")
	fs.goDuration(&c.getConfigInterval, "prometheus.get_config_interval", "30s", "How often Prometheus is asked for its external labels and version. See also --prometheus.get_config_timeout.")
	fs.goDuration(&c.getConfigTimeout, "prometheus.get_config_timeout", "30s", "How long Prometheus may take to tell its external labels and version. See also --prometheus.get_config_interval.")
	fs.content(&c.prometheusClient, "prometheus.http-client", "the HTTP client that asks Prometheus", false)

	fs.string(&c.tsdbPath, "tsdb.path", "./data", "Data folder of Prometheus, from which blocks are uploaded. See also --objstore.config.")
	fs.string(&c.metaFileName, "shipper.meta-file-name", "thanos.shipper.json", "Name of the file in the data folder that lists the uploaded blocks. Prometheus reads it when --storage.tsdb.delay-compact-file.path points to it.")
	fs.enum(&c.hashFunc, "hash-func", "", "Checksum of each file that is noted in meta.json; none if empty.", "SHA256", "")
	fs.bool(&c.uploadCompacted, "shipper.upload-compacted", false, "Upload blocks that Prometheus has compacted too. For moving old data: don't leave it on.")
	fs.int(&c.uploadConcurrency, "shipper.upload-concurrency", "0", "Number of files of a block that are uploaded at a time; 0 is one.")
	fs.bool(&c.allowOutOfOrder, "shipper.allow-out-of-order-uploads", false, "Go on with newer blocks when one can't be uploaded. A compactor may halt on the block that comes late.").Hidden()
	fs.bool(&c.ignoreUnequalBlockSize, "shipper.ignore-unequal-block-size", false, "Start although Prometheus compacts blocks locally (its smallest and largest block durations differ).").Hidden()
	fs.bool(&c.skipCorrupted, "shipper.skip-corrupted-blocks", false, "Go on without blocks that can't be read.").Hidden()

	fs.string(&c.reloaderConfigFile, "reloader.config-file", "", "Configuration file of Prometheus to watch. See also --reloader.config-envsubst-file.")
	fs.string(&c.reloaderEnvsubstFile, "reloader.config-envsubst-file", "", "Where the watched configuration is written to with $(VAR) replaced by the environment.")
	fs.strings(&c.reloaderRuleDirs, "reloader.rule-dir", "Folder with rules to watch (repeatable).")
	fs.goDuration(&c.reloaderWatchInterval, "reloader.watch-interval", "3m", "How often the watched files are looked at without being told of a change.")
	fs.goDuration(&c.reloaderRetryInterval, "reloader.retry-interval", "5s", "How long to wait after a reload that did not succeed.")
	fs.enum(&c.reloaderMethod, "reloader.method", "http", "How Prometheus is told to reload: by its API, or by a signal to the process of --reloader.process-name.", "http", "signal")
	fs.string(&c.reloaderProcessName, "reloader.process-name", "prometheus", "Executable to signal. See also --reloader.method.")
}

// run builds the sidecar.
//
//	                 ┌─ promapi ──▶ Prometheus
//	gRPC ─▶ Sidecar ─┼─ shipper ──▶ bucket
//	HTTP    (loop)   └─ reloader ─▶ Prometheus
func (c *sidecarFlags) run(p *process) error {
	hc, err := c.client(p)
	if err != nil {
		return err
	}
	bkt, err := p.bucket(&c.objstore)
	if err != nil {
		return err
	}
	deps := sidecar.Deps{
		Prometheus: promapi.New(c.prometheusURL, hc, userAgent()),
		Bucket:     bkt,
		Probe:      p.probe,
	}
	if r := c.reloader(); r.Enabled() {
		if deps.Reloader, err = reloader.New(r, c.trigger(hc), p.logger, p.reg); err != nil {
			return err
		}
	}
	sc, err := sidecar.New(c.config(), deps, p.logger, p.reg)
	if err != nil {
		return err
	}
	p.loop(sc.Run)
	if _, err := p.addHTTP(c.http, &c.requestLog); err != nil {
		return err
	}
	return p.addGRPC(c.grpc, &c.requestLog, func(s *grpc.Server) { sc.Register(s) })
}

// client is what asks Prometheus.
func (c *sidecarFlags) client(p *process) (*http.Client, error) {
	text, err := c.prometheusClient.read()
	if err != nil {
		return nil, err
	}
	conf, err := clientconf.ParseHTTP(clientconf.DefaultHTTP(), text)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.prometheusClient.name, err)
	}
	hc, err := conf.Client(userAgent())
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.prometheusClient.name, err)
	}
	hc.Transport = p.tracing.Transport(hc.Transport)
	p.close(func() error { hc.CloseIdleConnections(); return nil })
	return hc, nil
}

func (c *sidecarFlags) config() sidecar.Config {
	return sidecar.Config{
		GetConfigInterval:      c.getConfigInterval,
		GetConfigTimeout:       c.getConfigTimeout,
		ReadyTimeout:           c.readyTimeout,
		MinTime:                c.minTime.now,
		TSDBPath:               c.tsdbPath,
		IgnoreUnequalBlockSize: c.ignoreUnequalBlockSize,
		Server:                 c.limits.config(),
		Shipper: shipper.Config{
			MetaFileName:    c.metaFileName,
			UploadCompacted: c.uploadCompacted,
			AllowOutOfOrder: c.allowOutOfOrder,
			SkipCorrupted:   c.skipCorrupted,
			Concurrency:     c.uploadConcurrency,
			Hash:            block.HashFunc(c.hashFunc),
		},
	}
}

func (c *sidecarFlags) reloader() reloader.Config {
	return reloader.Config{
		ConfigFile:         c.reloaderConfigFile,
		ConfigEnvsubstFile: c.reloaderEnvsubstFile,
		RuleDirs:           c.reloaderRuleDirs,
		WatchInterval:      c.reloaderWatchInterval,
		RetryInterval:      c.reloaderRetryInterval,
	}
}

func (c *sidecarFlags) trigger(hc *http.Client) reloader.Trigger {
	if c.reloaderMethod == "signal" {
		return &reloader.SignalTrigger{ProcessName: c.reloaderProcessName, URL: c.prometheusURL, Client: hc}
	}
	return &reloader.HTTPTrigger{URL: c.prometheusURL, Client: hc}
}
