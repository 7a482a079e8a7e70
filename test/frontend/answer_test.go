package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reply is an answer of either.
type reply struct {
	Code int
	Body answerBody

	header http.Header
	text   []byte
	moved  bool // the query has @ start() or @ end()
	read   bool // Body is what text says
}

// places are where in the query a note is about something.
var places = regexp.MustCompile(` \(\d+:\d+\)$`)

type answerBody struct {
	Status, ErrorType, Error string
	Data                     struct {
		ResultType string
		Result     elements
		Stats      json.RawMessage
		Analysis   json.RawMessage
	}
	Warnings, Infos []string
}

// elements are those of a vector or a matrix; a scalar or a string is one.
type elements []element

// UnmarshalJSON implements json.Unmarshaler.
func (es *elements) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, (*[]element)(es)) == nil {
		return nil
	}
	*es = elements{{}}
	return json.Unmarshal(b, &(*es)[0].Value)
}

type element struct {
	Metric             map[string]string
	Values, Histograms []point
	Value, Histogram   json.RawMessage
}

// point is a time and what there is at it, as JSON.
type point [2]json.RawMessage

// ask asks a handler a query of a path.
func ask(ctx context.Context, t testing.TB, h http.Handler, q request) *reply {
	t.Helper()
	query := q.form.Get("query")
	r := &reply{moved: strings.Contains(query, "@ start()") || strings.Contains(query, "@ end()")}
	r.Code, r.header, r.text = call(ctx, t, h, q)
	r.text = bytes.TrimSpace(r.text)
	return r
}

// decode reads the text, and leaves out what two answers of the same may differ in: a part of a range may meet another
// error first, and says so with its own times; what a query took; and the order of a vector.
func (r *reply) decode() error {
	if r.read {
		return nil
	}
	r.read = true
	if r.Code != http.StatusOK && !json.Valid(r.text) { // text of a proxy
		return nil
	}
	if err := json.Unmarshal(r.text, &r.Body); err != nil {
		return fmt.Errorf("%d %.300q: %w", r.Code, r.text, err)
	}
	if r.Code != http.StatusOK {
		r.Body = answerBody{Status: r.Body.Status, ErrorType: r.Body.ErrorType}
		return nil
	}
	for _, notes := range []*[]string{&r.Body.Warnings, &r.Body.Infos} {
		for i, n := range *notes {
			// A note says where in the query it is about something. Parts of a range are asked with the times that
			// @ start() and @ end() stand for, which take more room.
			if r.moved {
				n = places.ReplaceAllString(n, "")
				(*notes)[i] = n
			}
			// A gap is named with the times that were asked for.
			if at := strings.Index(n, " between "); at >= 0 {
				(*notes)[i] = n[:at]
			}
		}
		slices.Sort(*notes)
		*notes = slices.Compact(*notes)
	}
	if r.Body.Data.ResultType == "vector" {
		res := r.Body.Data.Result
		slices.SortStableFunc(res, func(a, b element) int { return strings.Compare(fmt.Sprint(a.Metric), fmt.Sprint(b.Metric)) })
	}
	r.Body.Data.Analysis = nil
	r.Body.Data.Stats = samplesOf(r.Body.Data.Stats)
	return nil
}

// samplesOf is the number of samples that statistics tell of.
func samplesOf(stats json.RawMessage) json.RawMessage {
	var s struct {
		Samples struct {
			Total json.RawMessage `json:"totalQueryableSamples"`
		} `json:"samples"`
	}
	if json.Unmarshal(stats, &s) != nil {
		return nil
	}
	return s.Samples.Total
}

// empty tells whether there is nothing in a success.
func (r *reply) empty() bool { return bytes.Contains(r.text, []byte(`"result":[]`)) }

// same tells whether two answers say the same.
func (r *reply) same(other *reply) bool {
	if r.Code != other.Code {
		return false
	}
	if bytes.Equal(r.text, other.text) {
		return true
	}
	return r.decode() == nil && other.decode() == nil && reflect.DeepEqual(r.Body, other.Body)
}

// difference shows what is different in two answers.
func (r *reply) difference(other *reply) string {
	if err := r.decode(); err != nil {
		return err.Error()
	}
	if err := other.decode(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d and %d, %s", r.Code, other.Code, cmp.Diff(r.Body, other.Body))
}

// missing are the notes that are not about PromQL.
func (r *reply) missing() (notes []string) {
	for _, n := range slices.Concat(r.Body.Warnings, r.Body.Infos) {
		if !strings.HasPrefix(n, "PromQL ") {
			notes = append(notes, n)
		}
	}
	return notes
}

// steps lists what there is at each time, by series.
func (r *reply) steps() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, s := range r.Body.Data.Result {
		for _, v := range slices.Concat(s.Values, s.Histograms) {
			at := string(v[0])
			if out[at] == nil {
				out[at] = map[string]string{}
			}
			out[at][fmt.Sprint(s.Metric)] = string(v[1])
		}
	}
	return out
}

// madeOf tells what is wrong with an answer that is made of several, since the world was not the same all the time: each
// step must be what one of the others says, but for the last bits of sums, whose order depends on the range; an answer that does not say that something is missing must be made of
// others that don't; and it says of nothing that it may be missing of which nobody else does. An error must be the error of one of them. Of an answer
// in shards that is true of each series.
func (r *reply) madeOf(others []*reply, shards bool) string {
	if err := r.decode(); err != nil {
		return err.Error()
	}
	var notes []string
	var steps []map[string]map[string]string
	whole := len(r.missing()) == 0
	for _, o := range others {
		if r.same(o) {
			return ""
		}
		if o.decode() != nil || o.Code != http.StatusOK || whole && len(o.missing()) > 0 {
			continue
		}
		notes = append(notes, slices.Concat(o.Body.Warnings, o.Body.Infos)...)
		steps = append(steps, o.steps())
	}
	if r.Code != http.StatusOK || len(steps) == 0 {
		return "nobody says so: " + others[len(others)-1].difference(r)
	}
	for _, n := range r.missing() { // what engines note is not the same each time
		if !slices.ContainsFunc(notes, func(o string) bool { return gapOf(o) == gapOf(n) }) {
			return "nobody else says " + n
		}
	}
	own := r.steps()
	times := map[string]bool{}
	for _, s := range append(steps, own) {
		for at := range s {
			times[at] = true
		}
	}
	for at := range times {
		ok := slices.ContainsFunc(steps, func(s map[string]map[string]string) bool {
			return len(s[at])+len(own[at]) == 0 || near(s[at], own[at])
		})
		if !ok && shards {
			ok = mixed(own[at], at, steps)
		}
		if !ok {
			all := fmt.Sprintf("at %s: got %v, and the querier has", at, own[at])
			for _, s := range steps {
				all += fmt.Sprintf(" %v", s[at])
			}
			return all
		}
	}
	return ""
}

// gapOf returns how an answer would say that data is missing of which this note says that a replica has it: a replica may
// have all of a part of the time and not all of the whole, and of a short part it may be unknown.
func gapOf(note string) string {
	data, ok := strings.CutPrefix(note, "the data of ")
	name, sets, found := strings.Cut(data, " ")
	if !ok || !found {
		return note
	}
	return "data of " + name + " (" + sets + ")"
}

// mixed tells whether each series of a step is as one of the others has it, and none is left out that all of them have.
func mixed(own map[string]string, at string, steps []map[string]map[string]string) bool {
	for series, v := range own {
		if !slices.ContainsFunc(steps, func(s map[string]map[string]string) bool { return s[at][series] == v }) {
			return false
		}
	}
	for series := range steps[0][at] {
		if _, has := own[series]; !has && !slices.ContainsFunc(steps, func(s map[string]map[string]string) bool { return s[at][series] == "" }) {
			return false
		}
	}
	return true
}

// near tells whether two steps are the same but for the last bits of floats.
func near(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for series, v := range a {
		w, has := b[series]
		if !has {
			return false
		}
		if v == w {
			continue
		}
		x, err := strconv.ParseFloat(strings.Trim(v, `"`), 64)
		y, err2 := strconv.ParseFloat(strings.Trim(w, `"`), 64)
		if err != nil || err2 != nil || !(math.Abs(x-y) <= 1e-13*math.Max(math.Abs(x), math.Abs(y))) {
			return false
		}
	}
	return true
}
