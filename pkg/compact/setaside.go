package compact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// SetAsideFilename is the mark of a block that can't be read. Beside it are Thanos's marks against compaction and
// downsampling. Removing all three brings the block back.
const SetAsideFilename = "koios-set-aside.json"

// SetAsideMark says why a block is set aside.
type SetAsideMark struct {
	ID      ulid.ULID `json:"id"`
	Version int       `json:"version"`
	// Time is when, in seconds since the epoch.
	Time int64 `json:"set_aside_time"`
	// Cause says why; File, Part and Fault say it for programs, if it is a defect of a file.
	Cause string `json:"cause"`
	File  string `json:"file,omitempty"`
	Part  string `json:"part,omitempty"`
	Fault string `json:"fault,omitempty"`
}

func writeSetAside(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, cause error, now time.Time) error {
	m := SetAsideMark{ID: id, Version: 1, Time: now.Unix(), Cause: cause.Error()}
	if c := stream.AsCorrupt(cause); c != nil {
		m.File, m.Part, m.Fault = c.File, c.Part, string(c.Fault)
	}
	if errors.Is(cause, errNotWhole) {
		m.Fault = string(stream.FaultMissing)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	name := block.Object(id, SetAsideFilename)
	if err := bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return nil
}

// restsOn tells whether another block may go because this one is there: it is not marked for deletion, not set aside by
// anyone since the plan was made, and whole. One that is not whole is set aside.
func (c *Compactor) restsOn(ctx context.Context, id ulid.ULID) (bool, error) {
	if err := stillWanted(ctx, c.bkt, []ulid.ULID{id}); err != nil {
		return false, ofBucket(err)
	}
	aside, err := c.bkt.Exists(ctx, block.Object(id, SetAsideFilename))
	switch {
	case err != nil:
		return false, ofBucket(fmt.Errorf("look for the mark of block %s: %w", id, err))
	case aside:
		return false, ofBucket(fmt.Errorf("block %s was set aside", id)) // the next look sees it
	}
	if err := verifyWhole(ctx, c.bkt, id); err != nil {
		if errors.Is(err, errNotWhole) {
			return false, c.setAside(ctx, id, err)
		}
		return false, ofBucket(err)
	}
	return true, nil
}
