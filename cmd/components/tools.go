package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	thanosobjstore "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/bucketops"
)

// Tools is what an operator does by hand.
func Tools() Component {
	return Component{
		name: "tools",
		help: "Look at a bucket, find what is wrong with it, mend it.",
		bind: noFlags,
		subs: []Component{toolsBucket(), toolsRulesCheck()},
	}
}

func noFlags(*flags) runner { return nil }

// bucketTool is the command line that all tools of a bucket share.
type bucketTool struct {
	objstore content
}

func toolsBucket() Component {
	t := &bucketTool{}
	return Component{
		name: "bucket",
		help: "Work on a bucket.",
		bind: func(fs *flags) runner {
			objstoreFlags(fs, &t.objstore, true)
			return nil
		},
		subs: []Component{
			t.verify(), t.list(), t.inspect(), t.web(), t.replicate(), t.downsample(), t.cleanup(), t.mark(), t.rewrite(),
			t.retention(), t.uploadBlocks(), t.doctor(),
		},
	}
}

// open opens the bucket.
func (t *bucketTool) open(p *process) (thanosobjstore.InstrumentedBucket, error) {
	return p.bucket(&t.objstore)
}

// task makes the runner of a tool that does one thing to the bucket.
func (t *bucketTool) task(do func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) error) runner {
	return func(p *process) error {
		bkt, err := t.open(p)
		if err != nil {
			return err
		}
		p.once(func(ctx context.Context) error { return do(ctx, p, bkt) })
		return nil
	}
}

// choiceFlags choose blocks of a bucket.
type choiceFlags struct {
	minTime, maxTime timeOrDuration
	timed            bool
	selector         content
	consistencyDelay time.Duration
	concurrency      int
	timeout          time.Duration
}

func (c *choiceFlags) bindTimes(fs *flags) {
	c.timed = true
	fs.timeOrDuration(&c.minTime, "min-time", "0000-01-01T00:00:00Z", "Earliest time of the blocks: RFC 3339, or a duration from now such as -6w. See also --max-time.")
	fs.timeOrDuration(&c.maxTime, "max-time", "9999-12-31T23:59:59Z", "Latest time of the blocks: RFC 3339, or a duration from now such as -2h. See also --min-time.")
}

func (c *choiceFlags) bindSelector(fs *flags) {
	fs.content(&c.selector, "selector.relabel-config", "relabel rules (keep, drop, hashmod) that choose blocks by their external labels and __block_id", true)
}

func (c *choiceFlags) bindSync(fs *flags) {
	fs.goDuration(&c.consistencyDelay, "consistency-delay", "30m", "Age that a block of a sidecar, receiver or ruler must have to be touched.")
	fs.int(&c.concurrency, "block-sync-concurrency", "20", "Number of meta.json files that are read at a time.")
}

func (c *choiceFlags) bindTimeout(fs *flags) {
	fs.goDuration(&c.timeout, "timeout", "5m", "How long reading the metadata may take.")
}

// limit is a context with the timeout, if there is one.
func (c *choiceFlags) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("it took longer than --timeout=%s", c.timeout))
}

func (c *choiceFlags) choice() (bucketops.Choice, error) {
	text, err := c.selector.read()
	if err != nil {
		return bucketops.Choice{}, err
	}
	relabel, err := block.ParseSelector(text)
	if err != nil {
		return bucketops.Choice{}, fmt.Errorf("flag --%s: %w", c.selector.name, err)
	}
	ch := bucketops.Choice{Selector: relabel, ConsistencyDelay: c.consistencyDelay, Concurrency: c.concurrency}
	if c.timed {
		ch.MinTime, ch.MaxTime = c.minTime.nowMillis, c.maxTime.nowMillis
	}
	return ch, nil
}

// dryRunFlag is that of tools which delete something.
func dryRunFlag(fs *flags, dst *bool) {
	fs.bool(dst, "dry-run", false, "Say what would be done, and change nothing.")
}

// bar shows how far a tool is, where somebody looks.
func bar(f *os.File) bucketops.Progress {
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return drawBar(f)
}

// barWidth is the length of the bar, in letters.
const barWidth = 30

func drawBar(w io.Writer) bucketops.Progress {
	var mu sync.Mutex
	most := 0 // calls of several goroutines may come out of order
	return func(what string, done, total int) {
		mu.Lock()
		defer mu.Unlock()
		if done < most && done != 1 {
			return
		}
		most = done
		full := barWidth * done / max(total, 1)
		end := ""
		if done == total {
			end, most = "\n", 0
		}
		_, _ = fmt.Fprintf(w, "\r[%s%s] %d/%d %s%s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done, total, what, end)
	}
}

// notYet ends a command that is known and not there yet.
func notYet(what, instead string) runner {
	return func(*process) error { return errors.New(what + " is not there yet: " + instead) }
}

// toolsRulesCheck is declared, so that manifests with it get a clear answer.
func toolsRulesCheck() Component {
	return Component{
		name: "rules-check",
		help: "Check files of rules (not there yet).",
		bind: func(fs *flags) runner {
			var rules []string
			fs.strings(&rules, "rules", "Files of rules to check, as globs (repeatable).").Required()
			return notYet("tools rules-check", "use promtool check rules")
		},
	}
}
