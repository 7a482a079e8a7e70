// Package cachefaults asks a store gateway over a slow bucket the same things with a cache and without one, while the
// cache's server, a real memcached or Redis, is killed, stopped, started again and filled with rubbish.
package cachefaults
