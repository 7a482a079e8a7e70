// Package e2e tells stories of whole fleets on a Docker engine: Koios from its image, beside Prometheus, an S3
// server, memcached, Redis and nginx, in containers on networks of their own.
//
// The stories have the build tag e2e and are run by `make e2e`, which makes Koios's image. No image is pulled:
// those of the other programs are made here of the program and the libraries that it loads. Without an engine
// they fail.
package e2e
