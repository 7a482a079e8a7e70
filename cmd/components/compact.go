package components

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-kit/log/level"
	thanosobjstore "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/compact"
	"github.com/koios-metrics/koios/pkg/serve"
)

// compactFlags is the command line of the compactor.
type compactFlags struct {
	http       serve.HTTPConfig
	objstore   content
	web        webFlags
	webRoute   string
	webDisable bool
	webLabel   string
	noAdmin    bool

	wait             bool
	waitInterval     time.Duration
	dataDir          string
	minTime, maxTime timeOrDuration
	selector         content

	consistencyDelay  time.Duration
	deleteDelay       time.Duration
	partialAge        time.Duration
	retention         [3]time.Duration
	noDownsampling    bool
	replicaLabels     []string
	dedupFunc         string
	vertical          bool
	hashFunc          string
	discoveryStrategy string

	concurrency           int
	downsampleConcurrency int
	blocksFetch           int
	filesConcurrency      int
	metaFetch             int
	memoryBytes           uint64
	scratchBytes          uint64

	cleanupInterval  time.Duration
	progressInterval time.Duration
	stallTimeout     time.Duration
	viewInterval     time.Duration
	viewTimeout      time.Duration

	maxIndexBytes  uint64
	maxLevel       int
	haltOnError    bool
	stopOnError    bool
	skipOutOfOrder bool
	acceptIndex    bool
}

// Compact is the component that merges, downsamples and deletes.
func Compact() Component {
	return Component{
		name: "compact",
		help: "Merge, deduplicate, downsample and delete the blocks in object storage.",
		bind: func(fs *flags) runner {
			c := &compactFlags{}
			c.bind(fs)
			return c.run
		},
	}
}

func (c *compactFlags) bind(fs *flags) {
	httpFlags(fs, &c.http)
	objstoreFlags(fs, &c.objstore, true)
	c.web.bind(fs)
	fs.string(&c.webRoute, "web.route-prefix", "", "Path under which the page and its API are served, if it differs from --web.external-prefix.")
	fs.bool(&c.webDisable, "web.disable", false, "Serve no page, and don't look at the whole bucket for it.")
	fs.string(&c.webLabel, "bucket-web-label", noDefault, "External label that groups the blocks on the page.")
	fs.bool(&c.noAdmin, "disable-admin-operations", false, "Refuse to mark blocks over the API.")

	fs.bool(&c.wait, "wait", false, "Go on until the process is ended, with a look at the bucket every --wait-interval. Without it, everything there is to do is done once.").Short('w')
	fs.goDuration(&c.waitInterval, "wait-interval", "5m", "Time between two looks at the bucket. See also --wait.")
	fs.string(&c.dataDir, "data-dir", "./data", "Folder for the blocks that are being worked on. It may be lost at any time. See also --compact.max-scratch.")
	fs.timeOrDuration(&c.minTime, "min-time", "0000-01-01T00:00:00Z", "Earliest time of the blocks that are worked on: RFC 3339, or a duration from now such as -6w. See also --max-time.")
	fs.timeOrDuration(&c.maxTime, "max-time", "9999-12-31T23:59:59Z", "Latest time of the blocks that are worked on: RFC 3339, or a duration from now such as -2h. See also --min-time.")
	fs.content(&c.selector, "selector.relabel-config", "relabel rules (keep, drop, hashmod) that choose blocks by their external labels and __block_id", true)

	fs.goDuration(&c.consistencyDelay, "consistency-delay", "30m", "Age at which a block is worked on. For object storage that is slow to show all objects of a block.")
	fs.promDuration(&c.deleteDelay, "delete-delay", "48h", "How long a block stays after it was marked for deletion, so that everybody finds what replaces it.")
	fs.goDuration(&c.partialAge, "debug.partial-upload-age", "48h", "Age at which objects of an upload that never ended are deleted.").Hidden()
	for i, r := range []string{"raw", "5m", "1h"} {
		fs.promDuration(&c.retention[i], "retention.resolution-"+r, "0d", "How long data of resolution "+r+" is kept; 0d is forever. Data that a coarser resolution should hold is kept until it does.")
	}
	fs.bool(&c.noDownsampling, "downsampling.disable", false, "Make no blocks of 5m and 1h.")
	fs.strings(&c.replicaLabels, "deduplication.replica-label", "External label that tells replicas apart: blocks that differ in nothing else are merged (repeatable). See also --deduplication.func.")
	fs.enum(&c.dedupFunc, "deduplication.func", "", "How replicas are merged: penalty takes one at a time, as queries do; none keeps every sample of each.", "penalty", "")
	fs.bool(&c.vertical, "compact.enable-vertical-compaction", false, "Merge blocks that overlap in time. --deduplication.replica-label implies it.").Hidden()
	fs.enum(&c.hashFunc, "hash-func", "", "Checksum that is written for each file of a block; none is none.", "SHA256", "")
	fs.string(&c.discoveryStrategy, "block-discovery-strategy", "concurrent", "How blocks are found: concurrent asks for each folder's meta.json, recursive lists every object.")

	fs.int(&c.concurrency, "compact.concurrency", "1", "Number of merges at a time. While one is merged, the next is downloaded and the one before uploaded.")
	fs.int(&c.downsampleConcurrency, "downsample.concurrency", "1", "Number of blocks that are downsampled at a time.")
	fs.int(&c.blocksFetch, "compact.blocks-fetch-concurrency", "1", "Number of blocks of one merge that are downloaded at a time.")
	fs.int(&c.filesConcurrency, "block-files-concurrency", "1", "Number of files of a block that are copied at a time.")
	fs.int(&c.metaFetch, "block-meta-fetch-concurrency", "32", "Number of meta.json files that are read at a time.")
	fs.bytes(&c.memoryBytes, "compact.max-memory", "1GB", "Memory for the buffers of all merges and downsampling together.")
	fs.bytes(&c.scratchBytes, "compact.max-scratch", "0", "Space in --data-dir for blocks being worked on; 0 is nine tenths of what is free at the start. Blocks that don't fit are read from the bucket piece by piece.")

	fs.goDuration(&c.cleanupInterval, "compact.cleanup-interval", "5m", "Time between two rounds of deleting, with --wait; 0s never deletes. See also --delete-delay.")
	fs.goDuration(&c.progressInterval, "compact.progress-interval", "5m", "Time between two counts of what there is to do, shown as metrics; 0s is never.")
	fs.goDuration(&c.stallTimeout, "compact.stall-timeout", "24h", "Not ready when there is something to do and nothing has gone on for so long; 0s is never.")
	fs.goDuration(&c.viewInterval, "block-viewer.global.sync-block-interval", "1m", "Time between two looks at the whole bucket, for the page.")
	fs.goDuration(&c.viewTimeout, "block-viewer.global.sync-block-timeout", "5m", "How long such a look may take.")

	fs.bytes(&c.maxIndexBytes, "compact.block-max-index-size", "64GB", "Size that the index of a block may have: a block that would lead past it is marked against compaction.").Hidden()
	fs.int(&c.maxLevel, "debug.max-compaction-level", "4", "Largest level that blocks are merged to: 4 is 14 days, 3 is 2 days, 2 is 8 hours, 1 is 2 hours.").Hidden()
	fs.bool(&c.haltOnError, "debug.halt-on-error", true, "Park a group that can't be merged, and show it in thanos_compact_halted. Everything else goes on. See also --compact.stop-on-error.").Hidden()
	fs.bool(&c.stopOnError, "compact.stop-on-error", false, "Stop all work when a group can't be merged, until the process is restarted.")
	fs.bool(&c.skipOutOfOrder, "compact.skip-block-with-out-of-order-chunks", false, "Mark a block against compaction whose chunks are out of order. Without it they are put in order.").Hidden()
	fs.bool(&c.acceptIndex, "debug.accept-malformed-index", false, "Work on a block whose label names are not sorted: they are sorted then. Without it such a block is set aside.").Hidden()
}

// run builds the compactor.
//
//	HTTP ─▶ blocks API, state ──▶ compact.Compactor ─▶ bucket
//	                                   ▲
//	              passes, cleaning, counting (loops)
func (c *compactFlags) run(p *process) error {
	bkt, err := p.resilientBucket(&c.objstore)
	if err != nil {
		return err
	}
	cfg, err := c.config(p)
	if err != nil {
		return err
	}
	comp, err := compact.New(bkt, cfg, p.logger, p.reg)
	if err != nil {
		return err
	}
	if c.wait {
		p.loop(comp.Run)
		p.loop(func(ctx context.Context) error { return c.watch(ctx, p, comp) })
	} else {
		p.once(comp.RunOnce)
	}
	hs, err := p.addHTTP(c.http, &content{})
	if err != nil {
		return err
	}
	if err := c.addAPI(p, hs, bkt, comp); err != nil {
		return err
	}
	p.probe.Ready()
	return nil
}

func (c *compactFlags) config(p *process) (compact.Config, error) {
	selector, err := c.selector.read()
	if err != nil {
		return compact.Config{}, err
	}
	relabel, err := block.ParseSelector(selector)
	if err != nil {
		return compact.Config{}, fmt.Errorf("flag --%s: %w", c.selector.name, err)
	}
	scratch := int64(c.scratchBytes)
	if scratch == 0 {
		if scratch, err = compact.FreeScratch(c.dataDir); err != nil {
			return compact.Config{}, fmt.Errorf("flag --data-dir: %w", err)
		}
	}
	_ = level.Info(p.logger).Log("msg", "budgets of compaction", "memoryBytes", c.memoryBytes, "scratchBytes", scratch)
	return compact.Config{
		DataDir: c.dataDir,
		Settings: compact.Settings{
			Level: c.maxLevel, Vertical: c.vertical || len(c.replicaLabels) > 0, Downsample: !c.noDownsampling,
			IndexBytesMax: int64(c.maxIndexBytes),
			Retention: map[int64]time.Duration{
				block.ResolutionRaw: c.retention[0], block.Resolution5m: c.retention[1], block.Resolution1h: c.retention[2],
			},
		},
		ReplicaLabels: slices.Clone(c.replicaLabels), Penalty: c.dedupFunc == "penalty",
		MinTime: c.minTime.nowMillis, MaxTime: c.maxTime.nowMillis, Selector: relabel,
		ConsistencyDelay: c.consistencyDelay, DeleteDelay: c.deleteDelay, PartialAge: c.partialAge,
		Discovery: block.Discovery(c.discoveryStrategy), MetaFetchConcurrency: c.metaFetch,
		Concurrency: c.concurrency, DownsampleConcurrency: c.downsampleConcurrency,
		BlocksFetchConcurrency: c.blocksFetch, FilesConcurrency: c.filesConcurrency, Hash: block.HashFunc(c.hashFunc),
		ScratchBytesMax: scratch, MemoryBytesMax: int64(c.memoryBytes),
		WaitInterval: c.waitInterval, CleanupInterval: c.cleanupInterval, ProgressInterval: c.progressInterval,
		StallAfter: c.stallTimeout, ParkOnError: c.haltOnError, StopOnError: c.stopOnError,
		SkipDisorder: c.skipOutOfOrder, Unsorted: c.acceptIndex,
	}, nil
}

// watch turns the process not ready while nothing progresses.
func (c *compactFlags) watch(ctx context.Context, p *process, comp *compact.Compactor) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		if err := comp.Stalled(); err != nil {
			p.probe.NotReady(err)
		} else {
			p.probe.Ready()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// addAPI serves the blocks and the state of the work. The view of the whole bucket has a look of its own.
func (c *compactFlags) addAPI(p *process, hs *serve.HTTP, bkt thanosobjstore.InstrumentedBucket, comp *compact.Compactor) error {
	prefix, err := c.web.routePrefix(c.webRoute)
	if err != nil {
		return err
	}
	blocks := &blocksAPI{label: c.webLabel, loaded: comp.Blocks, bkt: bkt, readOnly: c.noAdmin, logger: p.logger}
	viewer, err := block.NewFetcher(bkt, block.FetcherConfig{
		Discovery: block.Discovery(c.discoveryStrategy), Concurrency: c.metaFetch, MetricsPrefix: "thanos_bucket_uiblocks_meta",
	}, p.logger, p.reg)
	if err != nil {
		return err
	}
	if c.wait && !c.webDisable {
		p.loop(func(ctx context.Context) error { return c.view(ctx, viewer, blocks) })
	}
	blocks.loadedState = comp.Looked
	hs.Handle("GET "+prefix+"/api/v1/blocks", hs.Wrap("blocks", http.HandlerFunc(blocks.list)))
	hs.Handle("POST "+prefix+"/api/v1/blocks/mark", hs.Wrap("blocks_mark", http.HandlerFunc(blocks.mark)))
	hs.Handle("GET "+prefix+"/api/v1/compact", hs.Wrap("compact", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerData(w, comp.State())
	})))
	return p.status().Register(hs, prefix, !c.web.disableCORS, hs.Wrap)
}

// view looks at the whole bucket from time to time.
func (c *compactFlags) view(ctx context.Context, viewer *block.Fetcher, blocks *blocksAPI) error {
	tick := time.NewTicker(max(c.viewInterval, time.Second))
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, c.viewTimeout)
		v, err := viewer.Fetch(look)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		blocks.viewed(v, err)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
