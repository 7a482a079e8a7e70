package frontend

import "net/http"

// WithCORS lets pages of other origins use the API: it adds the headers to all answers of a handler, and where the querier
// has sent them too they are there once.
func WithCORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&corsWriter{ResponseWriter: w}, r)
	})
}

// corsHeaders are those of Thanos's API.
var corsHeaders = map[string]string{
	"Access-Control-Allow-Headers":  "Accept, Accept-Encoding, Authorization, Content-Type, Origin",
	"Access-Control-Allow-Methods":  "GET, POST, OPTIONS",
	"Access-Control-Allow-Origin":   "*",
	"Access-Control-Expose-Headers": "Date",
}

// corsWriter sets the headers when the answer begins.
type corsWriter struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (w *corsWriter) WriteHeader(code int) {
	if !w.begun && code >= 200 { // what comes before is not the answer
		w.begun = true
		for name, v := range corsHeaders {
			w.Header().Set(name, v)
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *corsWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (w *corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
