package federate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/storepb"
)

// callsMax bounds the peers that one request asks at a time.
const callsMax = 64

// frame is a message of a stream that carries data or else a warning.
type frame interface {
	proto.Message
	GetWarning() string
}

// question is what peers are asked: the capability it takes and the call itself. Res is the message of the
// stream, of which *Res is the frame.
type question[Res any, F interface {
	*Res
	frame
}] struct {
	// what is asked for, as errors name it.
	what       string
	capability endpoint.Capability
	// strategy ABORT fails the request at the first warning.
	strategy storepb.PartialResponseStrategy
	// open starts the call; a nil stream is of a peer that has nothing to say.
	open func(context.Context, endpoint.Peer) (grpc.ServerStreamingClient[Res], error)
	// holds tells data from warnings.
	holds func(F) bool
	// keep, if not nil, looks at the data of a frame, and may change it; false drops it.
	keep func(endpoint.Peer, F) bool
}

// heard is what one peer said.
type heard[F any] struct {
	frames   []F
	warnings []string
	bytes    int64 // charged to the budget
}

// said is what all peers said, in the order of their names.
type said[F any] struct {
	frames   []F
	warnings []string
	release  func()
}

// ask puts a question to every peer that has the capability. What a peer said before it failed counts. The
// caller calls release once, unless there is an error.
func ask[Res any, F interface {
	*Res
	frame
}](ctx context.Context, f *Federation, q question[Res, F]) (*said[F], error) {
	ctx = tenancy.Outgoing(ctx)
	abort := q.strategy == storepb.PartialResponseStrategy_ABORT
	all := &said[F]{}
	for _, lost := range f.peers.AbsentOf(q.capability) {
		text := fmt.Sprintf("read %s of %s: %v", q.what, lost.Description.Name, lost.Err)
		if abort {
			return nil, store.Errorf(store.KindAborted, "%s", text)
		}
		all.warnings = append(all.warnings, text)
	}
	peers := f.peers.Peers(q.capability)
	parts := make([]heard[F], len(peers))
	release := func() {
		for i := range parts {
			f.cfg.Budget.Release(parts[i].bytes)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(callsMax)
	for i, p := range peers {
		g.Go(func() error {
			h := &parts[i]
			err := listen(gctx, f, &q, p, h)
			switch {
			case err == nil && (!abort || len(h.warnings) == 0):
				return nil
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case store.KindOf(err) == store.KindLimit:
				return err
			case !abort:
				h.warnings = append(h.warnings, err.Error())
				return nil
			case err != nil:
				return store.Errorf(store.KindAborted, "%w", err)
			}
			return store.Errorf(store.KindAborted, "%s", h.warnings[0])
		})
	}
	if err := g.Wait(); err != nil {
		release()
		return nil, err
	}
	for i := range parts {
		all.frames = append(all.frames, parts[i].frames...)
		all.warnings = append(all.warnings, parts[i].warnings...)
	}
	all.release = release
	return all, nil
}

// listen asks one peer and takes down what it says.
func listen[Res any, F interface {
	*Res
	frame
}](ctx context.Context, f *Federation, q *question[Res, F], p endpoint.Peer, h *heard[F]) error {
	timeout := f.cfg.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)*9/10)
	}
	late := fmt.Errorf("no full answer within %s", timeout.Round(time.Millisecond))
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, late)
	defer cancel()
	failed := func(err error) error {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case status.Code(err) == codes.DeadlineExceeded: // the peer's clock was faster
			err = late
		}
		return fmt.Errorf("read %s of %s: %w", q.what, p.Name, err)
	}
	stream, err := q.open(ctx, p)
	if err != nil {
		return failed(err)
	}
	if stream == nil {
		return nil
	}
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return failed(err)
		}
		m := F(res)
		if !q.holds(m) {
			h.warnings = append(h.warnings, fmt.Sprintf("%s: %s", p.Name, m.GetWarning()))
			if q.strategy == storepb.PartialResponseStrategy_ABORT {
				return nil // cancels the call
			}
			continue
		}
		n := int64(proto.Size(m))
		if err := f.cfg.Budget.Reserve(n); err != nil {
			return fmt.Errorf("hold %s of %s: %w", q.what, p.Name, err)
		}
		h.bytes += n
		if q.keep == nil || q.keep(p, m) {
			h.frames = append(h.frames, m)
		}
	}
}

// serve answers a request over gRPC with the frames of all peers, warnings first.
func serve[F any](ctx context.Context, all *said[F], err error, warn func(string) error, send func(F) error) error {
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return wire.Status(err)
	}
	defer all.release()
	for _, w := range all.warnings {
		if err := warn(w); err != nil {
			return err
		}
	}
	for _, m := range all.frames {
		if err := send(m); err != nil {
			return err
		}
	}
	return nil
}
