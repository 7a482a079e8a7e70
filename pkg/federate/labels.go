package federate

import (
	"bytes"
	"cmp"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/labelpb"
)

// labelsOf reads a set of labels. It takes what peers send: labels in any order, and a name that comes twice,
// as some sidecars do where a stored label is named like an external one; the last value then counts.
func labelsOf(set *labelpb.ZLabelSet) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, l := range set.GetLabels() {
		b.Set(l.GetName(), l.GetValue())
	}
	return b.Labels()
}

// without reads a set of labels and takes some off.
func without(set *labelpb.ZLabelSet, names []string) labels.Labels {
	return labels.NewBuilder(labelsOf(set)).Del(names...).Labels()
}

func encodeLabels(ls labels.Labels) *labelpb.ZLabelSet { return wire.EncodeLabelSet(ls) }

// compareTimes puts the earlier first; no time is the earliest.
func compareTimes(a, b *timestamppb.Timestamp) int {
	return cmp.Or(cmp.Compare(a.GetSeconds(), b.GetSeconds()), cmp.Compare(a.GetNanos(), b.GetNanos()))
}

// compareBytes orders messages that are equal in all that matters, so that which one wins does not depend on
// the order they came in.
func compareBytes(a, b proto.Message) int {
	o := proto.MarshalOptions{Deterministic: true}
	x, _ := o.Marshal(a) // what could be unmarshalled can be marshalled
	y, _ := o.Marshal(b)
	return bytes.Compare(x, y)
}
