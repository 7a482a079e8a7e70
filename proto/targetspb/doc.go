// Package targetspb is the service thanos.Targets, which lists scrape targets.
package targetspb
