// Package rulespb is the service thanos.Rules, which lists rules and alerts.
package rulespb
