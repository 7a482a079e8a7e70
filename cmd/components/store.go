package components

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-kit/log/level"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/store/bucket"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// storeFlags is the command line of the store gateway.
type storeFlags struct {
	http       serve.HTTPConfig
	grpc       serve.GRPCConfig
	requestLog content
	objstore   content
	parquet    content
	limits     storeLimits
	web        webFlags
	webDisable bool
	webLabel   string
	noAdmin    bool

	dataDir          string
	minTime, maxTime timeOrDuration
	selector         content

	syncInterval         time.Duration
	syncConcurrency      int
	fetchConcurrency     int
	discoveryStrategy    string
	consistencyDelay     time.Duration
	ignoreDeletionMarks  time.Duration
	seriesConcurrency    int
	touchedSeries        uint64
	sampleLimit          uint64
	downloadedBytes      uint64
	chunkPoolBytes       uint64
	memoryBytes          uint64
	cacheIndexHeader     bool
	indexCacheSize       uint64
	indexCache           content
	cachingBucket        content
	peers                *cache.Peers // nil: the cache of bucket objects is not shared with peers
	matcherCache         int
	lazyHeader           bool
	lazyHeaderIdle       time.Duration
	lazyHeaderStrategy   string
	postingsSampling     int
	lazyPostings         bool
	postingGroupRatio    float64
	seriesBatch          int
	estimatedSeriesBytes uint64
	estimatedChunkBytes  uint64
	coarser              bool

	removedPostings, removedLabel bool
}

// Store is the component over a bucket.
func Store() Component {
	return Component{
		name: "store",
		help: "Answer queries from the blocks in object storage.",
		bind: func(fs *flags) runner {
			c := &storeFlags{}
			c.bind(fs)
			return c.run
		},
	}
}

func (c *storeFlags) bind(fs *flags) {
	httpFlags(fs, &c.http)
	grpcFlags(fs, &c.grpc)
	requestLogFlags(fs, &c.requestLog)
	objstoreFlags(fs, &c.objstore, true)
	fs.content(&c.parquet, "objstore-parquet.config", "a second bucket, of Parquet files: blocks that are in it for whole days are not served from here", true)
	c.limits.bind(fs)
	c.web.bind(fs)
	fs.bool(&c.webDisable, "web.disable", false, "Serve no page; the API stays.")
	fs.string(&c.webLabel, "bucket-web-label", noDefault, "External label that groups the blocks on the page.")
	fs.bool(&c.noAdmin, "disable-admin-operations", false, "Refuse to mark blocks over the API.")

	fs.string(&c.dataDir, "data-dir", "./data", "Folder for what is kept of the bucket on local disk. It may be lost at any time.")
	fs.timeOrDuration(&c.minTime, "min-time", "0000-01-01T00:00:00Z", "Earliest time that is served: RFC 3339, or a duration from now such as -6w. See also --max-time.")
	fs.timeOrDuration(&c.maxTime, "max-time", "9999-12-31T23:59:59Z", "Latest time that is served: RFC 3339, or a duration from now such as -2h. See also --min-time.")
	fs.content(&c.selector, "selector.relabel-config", "relabel rules (keep, drop, hashmod) that choose blocks by their external labels and __block_id", true)

	fs.goDuration(&c.syncInterval, "sync-block-duration", "15m", "How often the bucket is looked through for new and deleted blocks.")
	fs.int(&c.syncConcurrency, "block-sync-concurrency", "20", "Number of blocks that are opened at a time, at first: up to eight times as many where that is faster.")
	fs.int(&c.fetchConcurrency, "block-meta-fetch-concurrency", "32", "Number of meta.json files that are read at a time, at first: up to eight times as many where that is faster.")
	fs.string(&c.discoveryStrategy, "block-discovery-strategy", "concurrent", "How blocks are found: concurrent asks for each folder's meta.json, unless listing every object takes fewer requests; recursive lists every object.")
	fs.promDuration(&c.consistencyDelay, "consistency-delay", "0s", "Smallest age of a block that is served. For object storage that is slow to show all objects of a block.")
	fs.promDuration(&c.ignoreDeletionMarks, "ignore-deletion-marks-delay", "24h", "How long blocks marked for deletion are still served. Choose less than the compactor's --delete-delay.")

	fs.int(&c.seriesConcurrency, "store.grpc.series-max-concurrency", "20", "Number of Series calls that are worked on at a time; others wait.")
	fs.uint64(&c.sampleLimit, "store.grpc.series-sample-limit", "0", "Largest number of samples that one Series call may touch, counted as 120 a chunk; 0 is no limit.")
	fs.uint64(&c.touchedSeries, "store.grpc.touched-series-limit", "0", "Largest number of series that one Series call may touch; 0 is no limit.")
	fs.bytes(&c.downloadedBytes, "store.grpc.downloaded-bytes-limit", "0", "Largest number of bytes that one Series call may read from the bucket; 0 is no limit.")

	fs.bytes(&c.chunkPoolBytes, "chunk-pool-size", "2GB", "Memory for chunks that are being answered with. See also --store.max-memory.")
	fs.bytes(&c.memoryBytes, "store.max-memory", "0", "Memory that the whole process keeps to: requests reserve what they read from what the index cache leaves of it, and those past their share are refused. 0 bounds requests by --chunk-pool-size alone. Leave a tenth of the container's limit free.")
	fs.bool(&c.cacheIndexHeader, "cache-index-header", true, "Keep index headers on local disk from one start to the next. Without it they are fetched at each start and removed at the end.")
	fs.bytes(&c.indexCacheSize, "index-cache-size", "250MB", "Memory for the index cache. See also --index-cache.config.")
	fs.content(&c.indexCache, "index-cache.config", "the index cache", true)
	inline, file := fs.content(&c.cachingBucket, "store.caching-bucket.config", "the cache of bucket objects", true)
	inline.Hidden()
	file.Hidden()
	fs.int(&c.matcherCache, "matcher-cache-size", "0", "Number of compiled matchers that are kept; 0 keeps none.")
	fs.bool(&c.lazyHeader, "store.enable-index-header-lazy-reader", false, "Close index headers when idle. They are opened at their first use in any case.")
	fs.goDuration(&c.lazyHeaderIdle, "store.index-header-lazy-reader-idle-timeout", "5m", "How long an index header stays open without use. See also --store.enable-index-header-lazy-reader.").Hidden()
	fs.enum(&c.lazyHeaderStrategy, "store.index-header-lazy-download-strategy", "eager", "When index headers are read from the bucket: at the start, or at their first use.", "eager", "lazy")
	fs.int(&c.postingsSampling, "store.index-header-posting-offsets-in-mem-sampling", "32", "One in how many posting offsets is kept in memory.").Hidden()
	fs.bool(&c.lazyPostings, "store.enable-lazy-expanded-postings", false, "Leave large posting lists unread when matching the series read is cheaper.")
	fs.float(&c.postingGroupRatio, "store.posting-group-max-key-series-ratio", "100", "Posting lists with more keys than this many times the expected series are left unread. See also --store.enable-lazy-expanded-postings.")
	fs.int(&c.seriesBatch, "debug.series-batch-size", "10000", "Number of series that are read at a time.").Hidden()
	fs.uint64(&c.estimatedSeriesBytes, "debug.estimated-max-series-size", "65536", "Expected size of a series in the index, in bytes.").Hidden()
	fs.uint64(&c.estimatedChunkBytes, "debug.estimated-max-chunk-size", "16000", "Expected size of a chunk, in bytes.").Hidden()

	fs.bool(&c.coarser, "store.coarser-blocks", true, "Answer from coarser blocks than a query asks for where there are no others, and say so; otherwise there is a hole, as in Thanos.")

	fs.bool(&c.removedPostings, "experimental.enable-index-cache-postings-compression", false, "Gone.").Hidden()
	fs.bool(&c.removedLabel, "debug.advertise-compatibility-label", false, "Gone.").Hidden()
}

// localGapBytes is what reading a file takes less time for than for another request to it.
const localGapBytes = 32 << 10

// warmBytes is how much of the local index headers is opened at the start.
const warmBytes = 256 << 20

// run builds the store gateway.
//
//	gRPC ─▶ server ─▶ bucket.Store ─▶ bucket
//	HTTP ─▶ blocks API ───┘  ▲
//	               sync (loop)
func (c *storeFlags) run(p *process) error {
	bkt, err := p.resilientBucket(&c.objstore)
	if err != nil {
		return err
	}
	cfg, err := c.config(p, bkt.Usually)
	if err != nil {
		return err
	}
	parquet, err := p.bucketBeside(&c.parquet, "parquet_")
	if err != nil {
		return err
	}
	if parquet != nil {
		cfg.Parquet = parquet
	}
	limitMemory(int64(c.memoryBytes))
	unpace := serve.PaceCollector(garbageLeast, garbagePercent)
	p.close(func() error {
		unpace()
		return nil
	})
	cached, err := c.cached(p, bkt, bkt.Usually)
	if err != nil {
		return err
	}
	if bkt.Provider() == objstore.FILESYSTEM {
		cfg.GapBytesMax = localGapBytes
	}
	st, err := bucket.New(cached, cfg, p.logger, p.reg)
	if err != nil {
		return err
	}
	p.close(st.Close)
	p.loop(st.CloseIdle)

	blocks := &blocksAPI{label: c.webLabel, loaded: st.Blocks, aside: st.SetAside, bkt: cached, readOnly: c.noAdmin, logger: p.logger}
	p.loop(func(ctx context.Context) error { return c.sync(ctx, p, st, blocks) })

	c.http.H2C = true
	hs, err := p.addHTTP(c.http, &c.requestLog)
	if err != nil {
		return err
	}
	if c.peers != nil {
		path, h := c.peers.Handler()
		hs.Handle(path, h)
	}
	if err := c.addAPI(p, hs, blocks); err != nil {
		return err
	}
	limits := c.limits.config()
	limits.Matchers = wire.NewMatcherCache(c.matcherCache, p.reg)
	return p.addGRPC(c.grpc, &c.requestLog, func(s *grpc.Server) {
		storepb.RegisterStoreServer(s, server.New(st, limits, p.logger, p.reg))
		infopb.RegisterInfoServer(s, server.NewInfo(func() (*infopb.InfoResponse, error) {
			if !p.probe.IsReady() {
				return nil, server.ErrNotReady
			}
			return server.InfoOf("store", st.Describe()), nil
		}))
	})
}

// config makes the Store's configuration; origin is what the bucket usually takes.
func (c *storeFlags) config(p *process, origin func() time.Duration) (bucket.Config, error) {
	selector, err := c.selector.read()
	if err != nil {
		return bucket.Config{}, err
	}
	relabel, err := block.ParseSelector(selector)
	if err != nil {
		return bucket.Config{}, fmt.Errorf("flag --%s: %w", c.selector.name, err)
	}
	text, err := c.indexCache.read()
	if err != nil {
		return bucket.Config{}, err
	}
	index, err := parseIndexCache(text, c.indexCacheSize)
	if err != nil {
		return bucket.Config{}, fmt.Errorf("flag --%s: %w", c.indexCache.name, err)
	}
	remote, err := openIndexCache(index, p, origin)
	if err != nil {
		return bucket.Config{}, fmt.Errorf("flag --%s: %w", c.indexCache.name, err)
	}
	memory := storeMemory(int64(c.memoryBytes), int64(c.chunkPoolBytes), int64(index.bytes))
	return bucket.Config{
		DataDir:                  c.dataDir,
		SyncInterval:             c.syncInterval,
		SyncConcurrency:          c.syncConcurrency,
		Discovery:                block.Discovery(c.discoveryStrategy),
		MetaFetchConcurrency:     c.fetchConcurrency,
		MinTime:                  c.minTime.nowMillis,
		MaxTime:                  c.maxTime.nowMillis,
		Selector:                 relabel,
		ConsistencyDelay:         c.consistencyDelay,
		IgnoreDeletionMarksDelay: c.ignoreDeletionMarks,
		MemoryBytesMax:           memory.requests,
		RequestMemoryBytesMax:    memory.request,
		IndexCacheBytesMax:       memory.cache,
		IndexCacheItemBytesMax:   int64(index.itemBytes),
		IndexCacheItems:          index.items,
		IndexCache:               remote,
		SeriesConcurrency:        c.seriesConcurrency,
		SeriesLimit:              c.touchedSeries,
		// A chunk counts as so many samples; a part of a chunk is a chunk.
		ChunksLimit:             (c.sampleLimit + bucket.SamplesPerChunk - 1) / bucket.SamplesPerChunk,
		BytesLimit:              c.downloadedBytes,
		LazyPostings:            c.lazyPostings,
		AsFineAsAsked:           !c.coarser,
		KeySeriesRatioMax:       c.postingGroupRatio,
		IndexHeaderIdleTimeout:  c.headerIdleTimeout(),
		IndexHeadersOnUse:       c.lazyHeader && c.lazyHeaderStrategy == "lazy",
		ForgetIndexHeaders:      !c.cacheIndexHeader,
		PostingOffsetSampling:   c.postingsSampling,
		SeriesBatchSize:         c.seriesBatch,
		EstimatedSeriesBytesMax: int64(c.estimatedSeriesBytes),
		EstimatedChunkBytesMax:  int64(c.estimatedChunkBytes),
	}, nil
}

// headerIdleTimeout is after how long an index header is closed; 0 is never.
func (c *storeFlags) headerIdleTimeout() time.Duration {
	if !c.lazyHeader {
		return 0
	}
	return c.lazyHeaderIdle
}

// sync looks at the bucket for the first time, which makes the store ready, and then from time to time.
func (c *storeFlags) sync(ctx context.Context, p *process, st *bucket.Store, blocks *blocksAPI) error {
	if err := st.InitialSync(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	blocks.synced(nil)
	p.probe.Ready()
	st.Warm(ctx, warmBytes)
	tick := time.NewTicker(c.syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := st.Sync(ctx)
		if ctx.Err() != nil {
			return nil
		}
		blocks.synced(err)
		if err != nil {
			_ = level.Warn(p.logger).Log("msg", "look at the bucket failed, serving what is known", "err", err)
		}
	}
}

func (c *storeFlags) addAPI(p *process, hs *serve.HTTP, blocks *blocksAPI) error {
	prefix, err := c.web.prefix()
	if err != nil {
		return err
	}
	hs.Handle("GET "+prefix+"/api/v1/blocks", hs.Wrap("blocks", http.HandlerFunc(blocks.list)))
	hs.Handle("POST "+prefix+"/api/v1/blocks/mark", hs.Wrap("blocks_mark", http.HandlerFunc(blocks.mark)))
	return p.status().Register(hs, prefix, !c.web.disableCORS, hs.Wrap)
}
