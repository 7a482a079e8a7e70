package components

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store/bucket"
)

// blocksAPI answers /api/v1/blocks and /api/v1/blocks/mark of a component over a bucket.
type blocksAPI struct {
	// label groups the blocks on the page.
	label  string
	loaded func() []*block.Meta
	// aside tells of blocks that could not be loaded.
	aside func() []bucket.SetAside
	bkt   objstore.Bucket
	// readOnly refuses marks.
	readOnly bool
	logger   log.Logger

	// loadedState tells when the loaded blocks were looked at; nil is what synced was told.
	loadedState func() (time.Time, error)

	mtx       sync.Mutex
	refreshed time.Time
	err       error
	// global is the view of the whole bucket, of components that have one.
	global blocksView
}

// viewed notes a look at the whole bucket. After a failed one, what was there before stays.
func (a *blocksAPI) viewed(v block.View, err error) {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	if err != nil {
		text := err.Error()
		a.global.Err = &text
		return
	}
	a.global = blocksView{Blocks: make([]*block.Meta, 0, len(v.Metas)), RefreshedAt: time.Now()}
	for _, id := range v.IDs() {
		if m := v.Metas[id]; m != nil {
			a.global.Blocks = append(a.global.Blocks, m)
		}
	}
}

// viewedBlocks are those of the last view of the whole bucket.
func (a *blocksAPI) viewedBlocks() []*block.Meta {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	return a.global.Blocks
}

// viewedState tells when that was, and what the last look failed with.
func (a *blocksAPI) viewedState() (time.Time, error) {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	if a.global.Err != nil {
		return a.global.RefreshedAt, errors.New(*a.global.Err)
	}
	return a.global.RefreshedAt, nil
}

// sync notes how the last look at the bucket went.
func (a *blocksAPI) synced(err error) {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.refreshed, a.err = time.Now(), err
}

// blocksView is what the page shows.
type blocksView struct {
	Label       string        `json:"label"`
	Blocks      []*block.Meta `json:"blocks"`
	RefreshedAt time.Time     `json:"refreshedAt"`
	Err         *string       `json:"err"`
	// SetAside are the blocks that are in the bucket and not served, because something is wrong with them.
	SetAside []asideView `json:"setAside,omitempty"`
}

// asideView is a block that was set aside.
type asideView struct {
	ID    ulid.ULID `json:"ulid"`
	Cause string    `json:"cause"`
	// Meta is missing where it could not be read.
	Meta *block.Meta `json:"meta,omitempty"`
}

// list answers with the blocks that are served or worked on, or with those of the whole bucket, if there is a view of it.
func (a *blocksAPI) list(w http.ResponseWriter, r *http.Request) {
	v := blocksView{Label: a.label, Blocks: []*block.Meta{}}
	if r.FormValue("view") == "loaded" {
		if bs := a.loaded(); bs != nil {
			v.Blocks = bs
		}
		if a.aside != nil {
			for _, b := range a.aside() {
				v.SetAside = append(v.SetAside, asideView{b.ID, b.Cause.Error(), b.Meta})
			}
		}
		at, err := a.state()
		v.RefreshedAt = at
		if err != nil {
			text := err.Error()
			v.Err = &text
		}
	} else {
		a.mtx.Lock()
		v = a.global
		a.mtx.Unlock()
		v.Label = a.label
		if v.Blocks == nil {
			v.Blocks = []*block.Meta{}
		}
	}
	answerData(w, v)
}

func (a *blocksAPI) state() (time.Time, error) {
	if a.loadedState != nil {
		return a.loadedState()
	}
	a.mtx.Lock()
	defer a.mtx.Unlock()
	return a.refreshed, a.err
}

// mark writes a mark for deletion or against compaction.
func (a *blocksAPI) mark(w http.ResponseWriter, r *http.Request) {
	if a.readOnly {
		answerError(w, "Admin operations are disabled")
		return
	}
	id, action, detail := r.FormValue("id"), r.FormValue("action"), r.FormValue("detail")
	if id == "" || action == "" {
		answerError(w, "parameters id and action are required")
		return
	}
	ref, err := ulid.Parse(id)
	if err != nil {
		answerError(w, fmt.Sprintf("id %q is no block id", id))
		return
	}
	switch action {
	case "DELETION":
		_, err = block.MarkForDeletion(r.Context(), a.bkt, ref, detail, time.Now())
	case "NO_COMPACTION":
		_, err = block.MarkForNoCompact(r.Context(), a.bkt, ref, block.NoCompactManual, detail, time.Now())
	default:
		err = fmt.Errorf("action %q is unknown: want DELETION or NO_COMPACTION", action)
	}
	if err != nil {
		answerError(w, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answerData(w http.ResponseWriter, data any) {
	b, err := json.Marshal(map[string]any{"status": "success", "data": data})
	if err != nil {
		answerError(w, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
}

func answerError(w http.ResponseWriter, text string) {
	b, err := json.Marshal(map[string]string{"status": "error", "errorType": "bad_data", "error": text})
	if err != nil {
		panic("BUG: strings can always be encoded: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write(append(b, '\n'))
}
