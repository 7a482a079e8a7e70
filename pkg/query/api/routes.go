package api

import (
	"net/http"
	"slices"
	"strings"
)

// Mux is what handlers are added to: an http.ServeMux, or a server that has one.
type Mux interface {
	Handle(pattern string, h http.Handler)
}

// Instrument gives the handler of a name its metrics, spans and logs.
type Instrument func(name string, h http.Handler) http.Handler

// Register adds all handlers below prefix ("" or "/path").
func (a *API) Register(mux Mux, prefix string, instrument Instrument) {
	r := registrar{mux: mux, prefix: strings.TrimSuffix(prefix, "/"), instrument: instrument, gzip: a.gzip, cors: !a.cfg.DisableCORS}
	const get, post = http.MethodGet, http.MethodPost
	r.add("query", "/query", a.tenant(a.query), get, post)
	r.add("query_range", "/query_range", a.tenant(a.queryRange), get, post)
	r.add("query", "/query_explain", a.tenant(a.explain), get, post)
	r.add("query", "/query_range_explain", a.tenant(a.explainRange), get, post)
	r.add("format_query", "/format_query", a.formatQuery, get, post)
	r.add("series", "/series", a.tenant(a.series), get, post)
	r.add("label_names", "/labels", a.tenant(a.labelNames), get, post)
	r.add("label_values", "/label/{name}/values", a.tenant(a.labelValues), get)
	r.add("stores", "/stores", a.stores, get)
	a.registerFederated(&r)
	a.cfg.Status.register(&r)
}

// registrar adds handlers to a mux.
type registrar struct {
	mux        Mux
	prefix     string
	instrument Instrument
	gzip       func(http.Handler) http.HandlerFunc
	cors       bool
	options    http.Handler // answers OPTIONS on every path
}

func (r *registrar) add(name, path string, f handlerFunc, methods ...string) {
	if r.options == nil {
		r.options = r.instrument("options", r.withCORS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		})))
		// What no other pattern matches.
		r.mux.Handle(r.prefix+"/api/v1/{path...}", r.dispatch(http.NotFoundHandler()))
	}
	h := r.instrument(name, r.withCORS(r.gzip(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		respond(w, req, f)
	}))))
	r.mux.Handle(r.prefix+"/api/v1"+path, r.dispatch(h, methods...))
}

// dispatch lets requests of the methods through, of all methods if none is named.
func (r *registrar) dispatch(h http.Handler, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Method == http.MethodOptions:
			r.options.ServeHTTP(w, req)
		case len(methods) == 0 || slices.Contains(methods, req.Method), req.Method == http.MethodHead && slices.Contains(methods, http.MethodGet):
			h.ServeHTTP(w, req)
		default:
			w.Header().Set("Allow", strings.Join(append(methods, http.MethodOptions), ", "))
			http.Error(w, "method not allowed: use "+strings.Join(methods, " or "), http.StatusMethodNotAllowed)
		}
	})
}

func (r *registrar) withCORS(h http.Handler) http.Handler {
	if !r.cors {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		header := w.Header()
		header.Set("Access-Control-Allow-Headers", "Accept, Accept-Encoding, Authorization, Content-Type, Origin")
		header.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Access-Control-Expose-Headers", "Date")
		h.ServeHTTP(w, req)
	})
}
