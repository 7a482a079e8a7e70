package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/koios-metrics/koios/pkg/store"
)

// get decodes the "data" of a JSON answer into data and returns its warnings.
func (c *Client) get(ctx context.Context, k call, limit int64, data any) ([]string, error) {
	return c.stream(ctx, k, limit, func(dec *json.Decoder) error { return dec.Decode(data) })
}

// stream hands the decoder to onData when it stands before the value of "data", which onData must
// consume, and returns the warnings of the answer.
func (c *Client) stream(ctx context.Context, k call, limit int64, onData func(*json.Decoder) error) (warnings []string, err error) {
	err = c.read(ctx, k, limit, func(_ *http.Response, body io.Reader) error {
		warnings, err = decodeEnvelope(body, onData)
		return err
	})
	return warnings, err
}

// decodeEnvelope walks over {"status":…,"data":…,"warnings":[…]}, whose keys come in any order.
func decodeEnvelope(r io.Reader, onData func(*json.Decoder) error) ([]string, error) {
	dec := json.NewDecoder(r)
	if err := expect(dec, '{'); err != nil {
		return nil, err
	}
	var env struct {
		status, errorType, err string
		warnings               []string
		data                   bool
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, malformed(err)
		}
		switch key {
		case "status":
			err = dec.Decode(&env.status)
		case "errorType":
			err = dec.Decode(&env.errorType)
		case "error":
			err = dec.Decode(&env.err)
		case "warnings":
			err = dec.Decode(&env.warnings)
		case "data":
			env.data = true
			err = onData(dec)
		default:
			var skip json.RawMessage
			err = dec.Decode(&skip)
		}
		if err != nil {
			return nil, malformed(err)
		}
	}
	if err := expect(dec, '}'); err != nil {
		return nil, err
	}
	switch {
	case env.status == "error" || env.err != "":
		return nil, store.Errorf(store.KindInternal, "%s: %s", env.errorType, env.err)
	case env.status != "success":
		return nil, malformed(fmt.Errorf("status is %q", env.status))
	case !env.data:
		return nil, malformed(errors.New("it holds no data"))
	}
	return env.warnings, nil
}

// array calls each for every element of a JSON array, or for none of null.
func array(dec *json.Decoder, each func() error) error {
	t, err := dec.Token()
	if err != nil || t == nil {
		return err
	}
	if t != json.Delim('[') {
		return fmt.Errorf("found %v instead of a list", t)
	}
	for dec.More() {
		if err := each(); err != nil {
			return err
		}
	}
	return expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return malformed(err)
	}
	if t != want {
		return malformed(fmt.Errorf("found %v instead of %v", t, want))
	}
	return nil
}

// malformed says that an answer is not what Prometheus sends. Errors that have a kind already, such as
// those of callbacks, stay as they are.
func malformed(err error) error {
	var e *store.Error
	if errors.As(err, &e) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return store.Errorf(store.KindInternal, "the answer is not that of a Prometheus: %w", err)
}
