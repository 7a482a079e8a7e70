package answer

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
)

// Answer is what a server said: series in the order in which they came. A scalar or a string is one series
// without labels.
type Answer struct {
	Type     string
	Series   []Series
	Warnings []string
}

// Series is one series of an answer, with its points in order.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Point is one value: a number, a histogram, or a text.
type Point struct {
	// Millis is the time in ms.
	Millis    int64
	Value     float64
	Histogram *model.SampleHistogram
	Text      string
}

func (a *Answer) read(result json.RawMessage) error {
	switch a.Type {
	case "matrix":
		var m model.Matrix
		if err := json.Unmarshal(result, &m); err != nil {
			return err
		}
		for _, s := range m {
			a.Series = append(a.Series, Series{Labels: plain(s.Metric), Points: points(s)})
		}
	case "vector":
		var v model.Vector
		if err := json.Unmarshal(result, &v); err != nil {
			return err
		}
		for _, s := range v {
			p := Point{Millis: int64(s.Timestamp), Value: float64(s.Value), Histogram: s.Histogram}
			a.Series = append(a.Series, Series{Labels: plain(s.Metric), Points: []Point{p}})
		}
	case "scalar":
		var s model.Scalar
		if err := json.Unmarshal(result, &s); err != nil {
			return err
		}
		a.Series = []Series{{Points: []Point{{Millis: int64(s.Timestamp), Value: float64(s.Value)}}}}
	case "string":
		var s model.String
		if err := json.Unmarshal(result, &s); err != nil {
			return err
		}
		a.Series = []Series{{Points: []Point{{Millis: int64(s.Timestamp), Text: s.Value}}}}
	default:
		return fmt.Errorf("unknown type %q", a.Type)
	}
	return nil
}

// points merges the numbers and the histograms of a series, which come in two lists, by time.
func points(s *model.SampleStream) []Point {
	ps := make([]Point, 0, len(s.Values)+len(s.Histograms))
	for _, v := range s.Values {
		ps = append(ps, Point{Millis: int64(v.Timestamp), Value: float64(v.Value)})
	}
	for _, h := range s.Histograms {
		ps = append(ps, Point{Millis: int64(h.Timestamp), Histogram: h.Histogram})
	}
	slices.SortStableFunc(ps, func(a, b Point) int { return int(a.Millis - b.Millis) })
	return ps
}

func plain(m model.Metric) map[string]string {
	ls := make(map[string]string, len(m))
	for name, value := range m {
		ls[string(name)] = string(value)
	}
	return ls
}

// Without takes labels off every series of the answer where they have the given value, and returns it.
func (a *Answer) Without(pairs map[string]string) *Answer {
	for _, s := range a.Series {
		for name, value := range pairs {
			if s.Labels[name] == value {
				delete(s.Labels, name)
			}
		}
	}
	return a
}

// key writes the labels of a series in one order.
func (s Series) key() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		fmt.Fprintf(&b, "%q=%q ", name, s.Labels[name])
	}
	return b.String()
}
