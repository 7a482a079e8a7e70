package components

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-kit/log/level"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/serve"
)

// toolWeb is the command line of tools bucket web.
type toolWeb struct {
	tool    *bucketTool
	choice  choiceFlags
	http    serve.HTTPConfig
	web     webFlags
	route   string
	label   string
	refresh time.Duration
	noAdmin bool
}

// web is tools bucket web.
func (t *bucketTool) web() Component {
	return Component{
		name: "web",
		help: "Serve the blocks of a bucket as JSON, under /api/v1/blocks. There is no page yet.",
		bind: func(fs *flags) runner {
			w := &toolWeb{tool: t}
			w.bind(fs)
			return w.run
		},
	}
}

func (t *toolWeb) bind(fs *flags) {
	httpFlags(fs, &t.http)
	t.web.bind(fs)
	fs.string(&t.route, "web.route-prefix", "", "Path under which the page and its API are served, if it differs from --web.external-prefix.")
	fs.string(&t.label, "label", noDefault, "External label that groups the blocks on the page.")
	fs.goDuration(&t.refresh, "refresh", "30m", "Time between two looks at the bucket.")
	fs.bool(&t.noAdmin, "disable-admin-operations", false, "Refuse to mark blocks over the API.")
	t.choice.bindTimes(fs)
	t.choice.bindSelector(fs)
	t.choice.bindTimeout(fs)
}

// run builds the server.
//
//	HTTP ─▶ blocks API ◀─ looks at the bucket (loop)
func (t *toolWeb) run(p *process) error {
	bkt, err := t.tool.open(p)
	if err != nil {
		return err
	}
	ch, err := t.choice.choice()
	if err != nil {
		return err
	}
	prefix, err := t.web.routePrefix(t.route)
	if err != nil {
		return err
	}
	viewer, err := block.NewFetcher(bkt, block.FetcherConfig{
		Concurrency: ch.Concurrency, MetricsPrefix: "thanos_bucket_blocks_meta",
		Filters: []block.Filter{block.TimePartition(ch.MinTime, ch.MaxTime), block.LabelShard(ch.Selector)},
	}, p.logger, p.reg)
	if err != nil {
		return err
	}
	hs, err := p.addHTTP(t.http, &content{})
	if err != nil {
		return err
	}
	blocks := &blocksAPI{label: t.label, bkt: bkt, readOnly: t.noAdmin, logger: p.logger}
	blocks.loaded, blocks.loadedState = blocks.viewedBlocks, blocks.viewedState
	p.loop(func(ctx context.Context) error { return t.look(ctx, p, viewer, blocks) })
	hs.Handle("GET "+prefix+"/api/v1/blocks", hs.Wrap("blocks", http.HandlerFunc(blocks.list)))
	hs.Handle("POST "+prefix+"/api/v1/blocks/mark", hs.Wrap("blocks_mark", http.HandlerFunc(blocks.mark)))
	return p.status().Register(hs, prefix, !t.web.disableCORS, hs.Wrap)
}

// look looks at the bucket, and again after each interval. It is ready once the first look has ended, well or not.
func (t *toolWeb) look(ctx context.Context, p *process, viewer *block.Fetcher, blocks *blocksAPI) error {
	tick := time.NewTicker(max(t.refresh, time.Second))
	defer tick.Stop()
	for {
		limited, cancel := t.choice.limit(ctx)
		v, err := viewer.Fetch(limited)
		if err != nil && limited.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(limited), err)
		}
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			_ = level.Warn(p.logger).Log("msg", "look at the bucket: trying again", "in", t.refresh, "err", err)
		}
		blocks.viewed(v, err)
		p.probe.Ready()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
