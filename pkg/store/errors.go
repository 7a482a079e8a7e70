package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// Kind says what a caller can do about an error. The two gRPC ends translate it from and to codes.
type Kind int

// The kinds of errors.
const (
	// KindInternal is a fault of the Store itself.
	KindInternal Kind = iota
	// KindBadRequest is a request that no Store could answer.
	KindBadRequest
	// KindLimit is a request that would take more than a configured limit or budget.
	KindLimit
	// KindUnavailable is a Store that can't answer now and may answer later.
	KindUnavailable
	// KindAborted is a request without partial response of which a part can't be had.
	KindAborted
)

// Error gives a kind to an error.
type Error struct {
	Kind Kind
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that was given a kind.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error of a kind; its format is that of fmt.Errorf.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of an error: that of the outermost Error in its chain.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// ErrNoMatchers answers a request that would select every series of a Store.
var ErrNoMatchers = Errorf(KindBadRequest, "no matchers specified (excluding external labels)")

// Warnings are what is missing from, or doubtful in, an answer. A hole is a *Gap; an *Info is neither.
type Warnings []error

// infoPrefix begins the text of an Info, by which it is known at the other end of a wire.
const infoPrefix = "info: "

// Info is the remark that an answer came about in an unusual way, with nothing known to be missing.
type Info struct{ Text string }

// Error returns the text, after a word that says what it is.
func (i *Info) Error() string { return infoPrefix + i.Text }

// IsInfo tells an Info from a warning.
func IsInfo(warning error) bool {
	var i *Info
	return errors.As(warning, &i)
}

// ReadWarning makes a warning of a text that came over a wire.
func ReadWarning(text string) error {
	if rest, ok := strings.CutPrefix(text, infoPrefix); ok {
		return &Info{Text: rest}
	}
	return errors.New(text)
}

// Doubts returns the warnings but for those that are an Info.
func (w Warnings) Doubts() Warnings {
	if !slices.ContainsFunc(w, IsInfo) {
		return w
	}
	return slices.DeleteFunc(slices.Clone(w), IsInfo)
}

// Strings returns the texts.
func (w Warnings) Strings() []string {
	if len(w) == 0 {
		return nil
	}
	ss := make([]string, len(w))
	for i, e := range w {
		ss[i] = e.Error()
	}
	return ss
}

// Gap is the warning that data is missing: whose, which and why.
type Gap struct {
	// Store is the name of the Store that did not answer, or not to the end.
	Store string
	// LabelSets are the external labels of what is missing, as last advertised.
	LabelSets []labels.Labels
	// MinTime and MaxTime bound what may be missing, in ms, both inclusive.
	MinTime, MaxTime int64
	Err              error
}

// gapLabelSetsMax is how many label sets the text of a gap names: a store gateway can have thousands.
const gapLabelSetsMax = 5

// Error names the labels and the time of the hole, and its cause.
func (g *Gap) Error() string {
	of := "labels unknown"
	switch n := len(g.LabelSets); {
	case n > gapLabelSetsMax:
		of = fmt.Sprintf("%v and %d more", g.LabelSets[:gapLabelSetsMax], n-gapLabelSetsMax)
	case n > 0:
		of = fmt.Sprint(g.LabelSets)
	}
	return fmt.Sprintf("data of %s (%s) between %s and %s may be missing: %v", g.Store, of, FormatTime(g.MinTime), FormatTime(g.MaxTime), g.Err)
}

// Unwrap returns the cause.
func (g *Gap) Unwrap() error { return g.Err }
