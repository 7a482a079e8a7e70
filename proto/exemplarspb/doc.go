// Package exemplarspb is the service thanos.Exemplars, which lists exemplars of series.
package exemplarspb
