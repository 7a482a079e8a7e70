package components

import (
	"context"
	"fmt"
	"os"

	thanosobjstore "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/bucketops"
)

// list is tools bucket ls.
func (t *bucketTool) list() Component {
	return Component{
		name: "ls",
		help: "List the blocks of a bucket.",
		bind: func(fs *flags) runner {
			var choice choiceFlags
			var cfg bucketops.ListConfig
			fs.string(&cfg.Output, "output", "", "What is written of each block: nothing for its id, wide for a line, json for its metadata, or a Go template over the metadata such as {{.ULID}}.").Short('o')
			fs.bool(&cfg.ExcludeDeleted, "exclude-delete", false, "Leave out blocks that are marked for deletion.")
			choice.bindTimes(fs)
			choice.bindSelector(fs)
			choice.bindTimeout(fs)
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.Choice, err = choice.choice(); err != nil {
					return err
				}
				ctx, cancel := choice.limit(ctx)
				defer cancel()
				return bucketops.List(ctx, bkt, cfg, p.out, p.logger, p.reg)
			})
		},
	}
}

// inspect is tools bucket inspect.
func (t *bucketTool) inspect() Component {
	return Component{
		name: "inspect",
		help: "Show the blocks of a bucket as a table.",
		bind: func(fs *flags) runner {
			var choice choiceFlags
			var cfg bucketops.InspectConfig
			var selector []string
			fs.strings(&selector, "selector", `External label that blocks must have, such as cluster="a" (repeatable; all must match).`).Short('l').PlaceHolder(`<name>="<value>"`)
			fs.enums(&cfg.SortBy, "sort-by", "Column to sort by (repeatable; the first counts most).", []string{"FROM", "UNTIL"}, bucketops.InspectColumns()...)
			fs.enum(&cfg.Output, "output", "table", "Form of the table.", "table", "tsv", "csv")
			choice.bindTimeout(fs)
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) error {
				ls, err := bucketops.ParseLabels(selector)
				if err != nil {
					return fmt.Errorf("flag --selector: %w", err)
				}
				cfg.Labels = ls.Map()
				ctx, cancel := choice.limit(ctx)
				defer cancel()
				return bucketops.Inspect(ctx, bkt, cfg, p.out, p.logger, p.reg)
			})
		},
	}
}

// verify is tools bucket verify.
func (t *bucketTool) verify() Component {
	return Component{
		name: "verify",
		help: "Read blocks from their first byte to their last and tell what is wrong with them. See also doctor.",
		bind: func(fs *flags) runner {
			var cfg bucketops.VerifyConfig
			var ids []string
			var backup content
			fs.content(&backup, "objstore-backup.config", "the object storage configuration of the bucket that gets a copy of each block before it is replaced or deleted", true)
			fs.bool(&cfg.Repair, "repair", false, "Mend what can be mended. See also --objstore-backup.config and --dry-run.").Short('r')
			fs.strings(&cfg.Issues, "issues", "What to look for (repeatable): index_known_issues is whatever is wrong within a block and is mended by --repair; overlapped_blocks is told only; duplicated_compaction is mended.", bucketops.IssueIndex, bucketops.IssueOverlaps).Short('i')
			fs.strings(&ids, "id", "Block to look at (repeatable); without it all are.")
			fs.promDuration(&cfg.DeleteDelay, "delete-delay", "0s", "Mark replaced blocks for deletion, if this is not 0s, and leave the deletion to the compactor; else delete them.")
			dryRunFlag(fs, &cfg.DryRun)
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.IDs, err = bucketops.ParseIDs(ids); err != nil {
					return fmt.Errorf("flag --id: %w", err)
				}
				b, err := secondBucket(p, &backup)
				if err != nil {
					return err
				}
				if b != nil {
					cfg.Backup = b
				}
				// Told to look at single blocks, the default issues are those that can be.
				if len(ids) > 0 && !p.flags.get("issues").changed() {
					cfg.Issues = []string{bucketops.IssueIndex}
				}
				cfg.Progress = bar(os.Stderr)
				return bucketops.Verify(ctx, bkt, cfg, p.out, p.logger, p.reg)
			})
		},
	}
}

// doctor is tools bucket doctor. Thanos has none.
func (t *bucketTool) doctor() Component {
	return Component{
		name: "doctor",
		help: "Find the faults of a bucket, say what each means and which command mends it. Ends with code 1 if there are errors.",
		bind: func(fs *flags) runner {
			var choice choiceFlags
			var cfg bucketops.DoctorConfig
			var ids []string
			var depth, output string
			fs.strings(&ids, "id", "Block to examine (repeatable); without it all are.")
			fs.enum(&depth, "depth", "index", "How much is read: metadata, the index too, or every chunk.", string(bucketops.DepthMeta), string(bucketops.DepthIndex), string(bucketops.DepthChunks))
			fs.enum(&output, "output", "text", "Form of the answer.", "text", "json").Short('o')
			fs.int(&cfg.Concurrency, "concurrency", "4", "Number of blocks that are read at a time.")
			choice.bindTimes(fs)
			choice.bindSelector(fs)
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.IDs, err = bucketops.ParseIDs(ids); err != nil {
					return fmt.Errorf("flag --id: %w", err)
				}
				if cfg.Choice, err = choice.choice(); err != nil {
					return err
				}
				cfg.Depth, cfg.Progress = bucketops.Depth(depth), bar(os.Stderr)
				d, err := bucketops.Diagnose(ctx, bkt, cfg, p.logger, p.reg)
				if err != nil {
					return err
				}
				write := d.Write
				if output == "json" {
					write = d.WriteJSON
				}
				if err := write(p.out); err != nil {
					return err
				}
				if n := d.Worst(bucketops.SeverityError); n > 0 {
					return fmt.Errorf("%d errors found", n)
				}
				return nil
			})
		},
	}
}
