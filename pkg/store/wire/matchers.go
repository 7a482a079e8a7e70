package wire

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/hintspb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// BlockLabel is the only label that block matchers may name; its value is a block's ULID.
const BlockLabel = "__block_id"

// EncodeMatchers turns matchers into messages.
func EncodeMatchers(ms []*labels.Matcher) []*storepb.LabelMatcher {
	out := make([]*storepb.LabelMatcher, len(ms))
	for i, m := range ms {
		// The four numbers agree: =, !=, =~, !~.
		out[i] = &storepb.LabelMatcher{Type: storepb.LabelMatcher_Type(m.Type), Name: m.Name, Value: m.Value}
	}
	return out
}

// DecodeMatchers turns messages into matchers. Its errors are of KindBadRequest.
func DecodeMatchers(ms []*storepb.LabelMatcher) ([]*labels.Matcher, error) {
	return Decoder{}.matchers(ms)
}

// Decoder turns messages into requests. The zero Decoder compiles each matcher anew.
type Decoder struct {
	// Compiled keeps matchers from one request to the next; nil keeps none.
	Compiled *MatcherCache
}

func (d Decoder) matchers(ms []*storepb.LabelMatcher) ([]*labels.Matcher, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	out := make([]*labels.Matcher, len(ms))
	for i, m := range ms {
		t := m.GetType()
		if t < storepb.LabelMatcher_EQ || t > storepb.LabelMatcher_NRE {
			return nil, store.Errorf(store.KindBadRequest, "matcher on label %q is of the unknown type %d", m.GetName(), t)
		}
		if m.GetName() == "" {
			return nil, store.Errorf(store.KindBadRequest, "matcher with value %q names no label", m.GetValue())
		}
		lm, err := d.Compiled.compile(labels.MatchType(t), m.GetName(), m.GetValue())
		if err != nil {
			return nil, store.Errorf(store.KindBadRequest, "matcher %s%s%q: %w", m.GetName(), labels.MatchType(t), m.GetValue(), err)
		}
		out[i] = lm
	}
	return out, nil
}

// blockHints are the three request hints, which look alike.
type blockHints interface {
	proto.Message
	GetBlockMatchers() []*storepb.LabelMatcher
}

// encodeHints packs block matchers, which are put into hints by the caller; none give no hints at all.
func encodeHints(ms []*labels.Matcher, pack func([]*storepb.LabelMatcher) proto.Message) (*anypb.Any, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	h, err := anypb.New(pack(EncodeMatchers(ms)))
	if err != nil {
		return nil, store.Errorf(store.KindBadRequest, "encode block matchers: %w", err)
	}
	return h, nil
}

// decodeHints unpacks block matchers from hints that must be of the type of into.
func decodeHints(h *anypb.Any, into blockHints) ([]*labels.Matcher, error) {
	if h == nil {
		return nil, nil
	}
	want := into.ProtoReflect().Descriptor().FullName()
	if !h.MessageIs(into) {
		return nil, store.Errorf(store.KindBadRequest, "hints are of type %q, want %s", h.GetTypeUrl(), want)
	}
	if err := h.UnmarshalTo(into); err != nil {
		return nil, store.Errorf(store.KindBadRequest, "decode %s: %w", want, err)
	}
	ms, err := DecodeMatchers(into.GetBlockMatchers())
	if err != nil {
		return nil, fmt.Errorf("block matchers: %w", err)
	}
	for _, m := range ms {
		if m.Name != BlockLabel {
			return nil, store.Errorf(store.KindBadRequest, "block matcher on label %q: only %s is allowed", m.Name, BlockLabel)
		}
	}
	return ms, nil
}

var (
	_ blockHints = (*hintspb.SeriesRequestHints)(nil)
	_ blockHints = (*hintspb.LabelNamesRequestHints)(nil)
	_ blockHints = (*hintspb.LabelValuesRequestHints)(nil)
)
