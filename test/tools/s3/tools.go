//go:build tools

// Package s3 pins the S3 server that the tests run beside Koios, in a module of its own, so that what it depends on
// changes neither Koios nor Prometheus.
package s3

import _ "github.com/versity/versitygw/cmd/versitygw"
