package matrix

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Answer is the answer of a range query. Its text is shared with what it was decoded from and with answers
// that were made of it; nobody changes it.
type Answer struct {
	// Series are sorted by labels, each label set once.
	Series []Series
	// Warnings and Infos are what the querier said beside.
	Warnings, Infos []string
	// Stats and Analysis are JSON as it came, nil where there was none.
	Stats, Analysis json.RawMessage
}

// Series is a series of an answer.
type Series struct {
	Labels labels.Labels
	// Metric is the JSON of the labels as it came.
	Metric []byte
	// Floats and Histograms are the points, in pieces that follow one another in time. No piece is empty.
	Floats, Histograms []Points
}

// Failure is an answer that says what went wrong.
type Failure struct {
	// Type is Prometheus's word for the kind of error, such as execution.
	Type, Text string
	Warnings   []string
}

// Error implements error.
func (f *Failure) Error() string { return f.Type + ": " + f.Text }

// Decode reads an answer. The bytes are kept as long as the answer or anything made of it is; they must not
// change. An answer that tells of a failure is a *Failure; text that is no answer of a range query wraps ErrSyntax.
func Decode(b []byte) (*Answer, error) {
	var (
		s       = scanner{b: b}
		a       = &Answer{}
		failure Failure
		status  string
		matrix  bool
	)
	err := s.object(func(key []byte) (err error) {
		switch string(key) {
		case `"status"`:
			return s.into(&status)
		case `"errorType"`:
			return s.into(&failure.Type)
		case `"error"`:
			return s.into(&failure.Text)
		case `"warnings"`:
			return s.into(&a.Warnings)
		case `"infos"`:
			return s.into(&a.Infos)
		case `"data"`:
			if s.next() != '{' { // null, of a failure
				_, err = s.value()
				return err
			}
			matrix, err = s.data(a)
			return err
		}
		_, err = s.value()
		return err
	})
	if err == nil && s.next() != 0 {
		err = s.fail("the end")
	}
	switch {
	case err != nil:
		return nil, err
	case status == "error":
		failure.Warnings = a.Warnings
		return nil, &failure
	case status != "success":
		return nil, fmt.Errorf("%w: status is %.20q", ErrSyntax, status)
	case !matrix:
		return nil, fmt.Errorf("%w: there is no matrix in it", ErrSyntax)
	}
	return a, a.settle()
}

// settle sorts the series of an answer that was read: queriers do, and whoever does not is put right.
func (a *Answer) settle() error {
	byLabels := func(x, y Series) int { return labels.Compare(x.Labels, y.Labels) }
	if !slices.IsSortedFunc(a.Series, byLabels) {
		slices.SortStableFunc(a.Series, byLabels)
	}
	for i := 1; i < len(a.Series); i++ {
		if labels.Equal(a.Series[i-1].Labels, a.Series[i].Labels) {
			return fmt.Errorf("%w: series %s comes twice", ErrSyntax, a.Series[i].Labels)
		}
	}
	return nil
}

// into decodes a value of no great size.
func (s *scanner) into(v any) error {
	start := s.at
	text, err := s.value()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: at byte %d: %w", ErrSyntax, start, err)
	}
	return nil
}

func (s *scanner) data(a *Answer) (matrix bool, err error) {
	err = s.object(func(key []byte) (err error) {
		switch string(key) {
		case `"resultType"`:
			var t string
			if err := s.into(&t); err != nil {
				return err
			}
			if t != "matrix" {
				return fmt.Errorf("%w: the result is a %.20q", ErrSyntax, t)
			}
			matrix = true
			return nil
		case `"result"`:
			if s.next() == 'n' { // null is no series
				_, err := s.value()
				return err
			}
			return s.array(func() error { return s.series(a) })
		case `"stats"`:
			a.Stats, err = s.value()
			return err
		case `"analysis"`:
			a.Analysis, err = s.value()
			return err
		}
		_, err = s.value()
		return err
	})
	return matrix, err
}

func (s *scanner) series(a *Answer) error {
	var se Series
	err := s.object(func(key []byte) (err error) {
		var p Points
		switch string(key) {
		case `"metric"`:
			if se.Metric, err = s.value(); err != nil {
				return err
			}
			se.Labels, err = ParseLabels(se.Metric)
			return err
		case `"values"`:
			if p, err = s.readPoints(false); len(p) > 0 {
				se.Floats = append(se.Floats, p)
			}
			return err
		case `"histograms"`:
			if p, err = s.readPoints(true); len(p) > 0 {
				se.Histograms = append(se.Histograms, p)
			}
			return err
		}
		_, err = s.value()
		return err
	})
	if err != nil {
		return err
	}
	if se.Metric == nil {
		return s.fail("a series with a metric before")
	}
	if len(se.Floats) > 1 || len(se.Histograms) > 1 {
		return s.fail("a series with its points once before")
	}
	a.Series = append(a.Series, se)
	return nil
}

// ParseLabels reads labels from a JSON object. An error wraps ErrSyntax.
//
// Most are written plainly and in order; what is not goes through encoding/json.
func ParseLabels(text []byte) (labels.Labels, error) {
	var (
		s    = scanner{b: text}
		b    = labels.NewScratchBuilder(12)
		last []byte
		hard bool
	)
	b.SetUnsafeAdd(true) // Labels copies
	err := s.object(func(key []byte) error {
		value, err := s.str()
		if err != nil {
			return err
		}
		if hard = hard || !plain(key) || !plain(value) || len(value) == 2 || string(last) >= string(key); !hard {
			b.Add(view(key[1:len(key)-1]), view(value[1:len(value)-1]))
		}
		last = key
		return nil
	})
	if err == nil && s.next() != 0 {
		err = s.fail("the end")
	}
	if err != nil {
		return labels.EmptyLabels(), err
	}
	if !hard {
		return b.Labels(), nil
	}
	m := map[string]string{}
	if err := json.Unmarshal(text, &m); err != nil {
		return labels.EmptyLabels(), fmt.Errorf("%w: labels %.100q: %w", ErrSyntax, text, err)
	}
	return labels.FromMap(m), nil
}

// plain tells whether the text of a JSON string is the string.
func plain(b []byte) bool {
	for _, c := range b {
		if c == '\\' || c < ' ' || c >= 0x80 {
			return false
		}
	}
	return true
}
