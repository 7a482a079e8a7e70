// Package answer asks PromQL questions over HTTP, of Prometheus and of Koios alike, and tells whether two
// answers are the same.
package answer
