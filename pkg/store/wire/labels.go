package wire

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/proto/labelpb"
)

// EncodeLabels turns labels into messages.
func EncodeLabels(ls labels.Labels) []*labelpb.Label {
	n := ls.Len()
	if n == 0 {
		return nil
	}
	// Two allocations, however many labels there are.
	all := make([]labelpb.Label, n)
	out := make([]*labelpb.Label, 0, n)
	ls.Range(func(l labels.Label) {
		m := &all[len(out)]
		m.Name, m.Value = l.Name, l.Value
		out = append(out, m)
	})
	return out
}

// EncodeLabelSet turns labels into a message that is never nil.
func EncodeLabelSet(ls labels.Labels) *labelpb.ZLabelSet {
	return &labelpb.ZLabelSet{Labels: EncodeLabels(ls)}
}

// EncodeLabelSets turns sets of labels into messages, in the order of labels.Compare.
func EncodeLabelSets(sets []labels.Labels) []*labelpb.ZLabelSet {
	sets = slices.Clone(sets)
	slices.SortFunc(sets, labels.Compare)
	out := make([]*labelpb.ZLabelSet, len(sets))
	for i, ls := range sets {
		out[i] = EncodeLabelSet(ls)
	}
	return out
}

// labelBytesMax is the longest name or value that labels.Labels can hold: it keeps lengths in 24 bits, and
// panics on longer ones.
const labelBytesMax = 1<<24 - 1

var errLabelTooLong = errors.New("the name or value of a label has 16 MiB or more")

// DecodeLabels turns messages into labels. It is lenient where meaning is not in doubt: labels may come
// in any order, and those with an empty value are left out, as they stand for absence. An empty or
// repeated name is an error, and so is a name or value of 16 MiB.
func DecodeLabels(ms []*labelpb.Label) (labels.Labels, error) {
	b := labels.NewScratchBuilder(len(ms))
	for _, m := range ms {
		if m.GetName() == "" {
			return labels.EmptyLabels(), fmt.Errorf("label with value %.200q has no name", m.GetValue())
		}
		if len(m.GetName()) > labelBytesMax || len(m.GetValue()) > labelBytesMax {
			return labels.EmptyLabels(), errLabelTooLong
		}
		if m.GetValue() != "" {
			b.Add(m.GetName(), m.GetValue())
		}
	}
	b.Sort()
	ls := b.Labels()
	if name, dup := ls.HasDuplicateLabelNames(); dup {
		return labels.EmptyLabels(), fmt.Errorf("label %.200q is there twice in %.500s", name, ls)
	}
	return ls, nil
}

// DecodeLabelSets turns messages into sets of labels, sorted and unique. Each set is read as
// DecodeLabels does.
func DecodeLabelSets(ms []*labelpb.ZLabelSet) ([]labels.Labels, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	sets := make([]labels.Labels, 0, len(ms))
	for _, m := range ms {
		ls, err := DecodeLabels(m.GetLabels())
		if err != nil {
			return nil, err
		}
		sets = append(sets, ls)
	}
	slices.SortFunc(sets, labels.Compare)
	return slices.CompactFunc(sets, labels.Equal), nil
}
