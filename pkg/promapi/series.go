package promapi

import (
	"context"
	"encoding/json"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Select narrows a call about series.
type Select struct {
	// Start and End bound the time in ms, both inclusive. Ends of the scale are not sent.
	Start, End int64
	// Matchers must all match; none are not sent, and select everything.
	Matchers []*labels.Matcher
	// Limit is the largest number of results; 0 is no limit. Prometheus before 2.54 ignores it.
	Limit int
}

// Series calls each with the stored labels of every series that s selects, in no order, as they arrive;
// an error of each ends the call. At least one matcher must refuse the empty string.
func (c *Client) Series(ctx context.Context, s Select, each func(labels.Labels) error) (warnings []string, err error) {
	k := call{what: "read series", path: "api/v1/series", params: s.params(), post: true}
	return c.stream(ctx, k, maxSeriesBytes, func(dec *json.Decoder) error {
		return array(dec, func() error {
			var ls labels.Labels
			if err := dec.Decode(&ls); err != nil {
				return err
			}
			return each(ls)
		})
	})
}

// LabelNames returns the names of stored labels of the selected series, sorted.
func (c *Client) LabelNames(ctx context.Context, s Select) (names, warnings []string, err error) {
	k := call{what: "read label names", path: "api/v1/labels", params: s.params(), post: true}
	warnings, err = c.get(ctx, k, maxLargeBytes, &names)
	return names, warnings, err
}

// LabelValues returns the values that the stored label name has in the selected series, sorted.
func (c *Client) LabelValues(ctx context.Context, name string, s Select) (values, warnings []string, err error) {
	if !model.LegacyValidation.IsValidLabelName(name) {
		name = model.EscapeName(name, model.ValueEncodingEscaping)
	}
	k := call{what: "read label values", path: "api/v1/label/" + url.PathEscape(name) + "/values", params: s.params()}
	warnings, err = c.get(ctx, k, maxLargeBytes, &values)
	return values, warnings, err
}

func (s *Select) params() url.Values {
	p := url.Values{}
	if len(s.Matchers) > 0 {
		p.Set("match[]", Selector(s.Matchers))
	}
	setTimes(p, s.Start, s.End)
	if s.Limit > 0 {
		p.Set("limit", strconv.Itoa(s.Limit))
	}
	return p
}

// Selector writes matchers as PromQL.
func Selector(ms []*labels.Matcher) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range ms {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(m.String())
	}
	b.WriteByte('}')
	return b.String()
}

// MinTime and MaxTime bound in ms the times that Prometheus's API can express: times in it pass through
// a Go time.Time, whose zero is year 1.
const (
	MinTime = (math.MinInt64/1000 + 62135596801) * 1000
	MaxTime = (math.MaxInt64/1000 - 62135596801) * 1000
)

// setTimes sets start and end, unless Prometheus's defaults, its ends of the scale, reach as far.
func setTimes(p url.Values, start, end int64) {
	if start > MinTime {
		p.Set("start", formatTime(start))
	}
	if end < MaxTime {
		p.Set("end", formatTime(end))
	}
}

// formatTime writes a time in ms as seconds with three decimals.
func formatTime(ms int64) string {
	s, frac := ms/1000, ms%1000
	if frac == 0 {
		return strconv.FormatInt(s, 10)
	}
	sign := ""
	if ms < 0 {
		sign, s, frac = "-", -s, -frac
	}
	f := strconv.FormatInt(frac, 10)
	return sign + strconv.FormatInt(s, 10) + "." + "000"[len(f):] + f
}
