// Package querypb is the service thanos.Query, which evaluates PromQL in a querier.
package querypb
