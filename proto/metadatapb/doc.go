// Package metadatapb is the service thanos.Metadata, which lists types and help texts of metrics.
package metadatapb
