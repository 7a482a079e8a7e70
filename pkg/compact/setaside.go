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
