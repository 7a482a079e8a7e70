package answer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// askTimeout bounds one request.
const askTimeout = 60 * time.Second

// Query is one question. Without a step it is an instant query at End.
type Query struct {
	Expr       string
	Start, End time.Time
	Step       time.Duration
	// Params are sent along, for example dedup or engine.
	Params url.Values
}

// At returns the question asked at one moment, with parameters as name and value by turns.
func At(expr string, at time.Time, params ...string) Query {
	return Query{Expr: expr, End: at, Params: values(params)}
}

// Over returns the question asked over a range, with parameters as name and value by turns.
func Over(expr string, start, end time.Time, step time.Duration, params ...string) Query {
	return Query{Expr: expr, Start: start, End: end, Step: step, Params: values(params)}
}

func values(pairs []string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// Error is an answer that says no.
type Error struct {
	Status        int
	Type, Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Type, e.Message) }

// Ask asks the server at base ("http://host:port") a question. An answer that says no is an *Error.
func Ask(ctx context.Context, base string, q Query) (*Answer, error) {
	path, params := "/api/v1/query", url.Values{}
	for name, vs := range q.Params {
		params[name] = vs
	}
	params.Set("query", q.Expr)
	if q.Step == 0 {
		params.Set("time", seconds(q.End))
	} else {
		path = "/api/v1/query_range"
		params.Set("start", seconds(q.Start))
		params.Set("end", seconds(q.End))
		params.Set("step", strconv.FormatFloat(q.Step.Seconds(), 'f', -1, 64))
	}
	var data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	}
	warnings, err := Call(ctx, base, path, params, &data)
	if err != nil {
		return nil, err
	}
	a := &Answer{Type: data.ResultType, Warnings: warnings}
	if err := a.read(data.Result); err != nil {
		return nil, fmt.Errorf("read the result of %s: %w", q.Expr, err)
	}
	return a, nil
}

// Call sends a form to a path of the API and decodes the field "data" of the answer.
func Call(ctx context.Context, base, path string, params url.Values, data any) (warnings []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader(params.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return Do(req, data)
}

// Do sends a request to the API and decodes the field "data" of the answer.
func Do(req *http.Request, data any) (warnings []string, err error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	var envelope struct {
		Status    string          `json:"status"`
		Data      json.RawMessage `json:"data"`
		ErrorType string          `json:"errorType"`
		Error     string          `json:"error"`
		Warnings  []string        `json:"warnings"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return nil, fmt.Errorf("read the answer (%s): %w: %.200s", res.Status, err, body)
	}
	if envelope.Status != "success" || res.StatusCode != http.StatusOK {
		return nil, &Error{Status: res.StatusCode, Type: envelope.ErrorType, Message: envelope.Error}
	}
	if err := json.Unmarshal(envelope.Data, data); err != nil {
		return nil, fmt.Errorf("read the data of the answer: %w: %.200s", err, envelope.Data)
	}
	return envelope.Warnings, nil
}

// seconds writes a time as the API wants it, to the millisecond.
func seconds(at time.Time) string {
	return model.TimeFromUnixNano(at.UnixNano()).String()
}
