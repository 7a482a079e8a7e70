// Package sidecar watches one Prometheus: it makes its data and its state known to queriers, and uploads
// its finished blocks.
//
// It may start before its Prometheus does. Until the first answers have come, it is not ready, and every
// request is refused as unavailable, because series without their external labels would be those of
// somebody else. From then on a heartbeat reads external labels, lowest timestamp and version at an
// interval; when it fails, the sidecar is not ready until one succeeds.
//
//	                 ┌ heartbeat ── what is known: labels, mint ─┐
//	Prometheus HTTP ─┼ store/prom ───────────────────────────────┼─ gRPC: Store, Info
//	                 └ promapi ── rules targets metadata … ──────┘        Rules, Targets, Metadata, …
//	Prometheus TSDB ── shipper ── bucket
//	configuration ──── reloader ── Prometheus
package sidecar
