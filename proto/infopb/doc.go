// Package infopb is the service thanos.info.Info, by which components describe themselves.
package infopb
