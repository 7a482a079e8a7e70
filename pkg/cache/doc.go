// Package cache keeps byte strings by key for a while: in memory, in memcached, in Redis, or in the memory of peers.
//
// A cache may forget anything at any time, and whoever uses one works the same without it. Three rules follow, and every
// kind of cache here keeps them:
//
//  1. It never lies. What is kept outside of this process carries a version and a checksum over its key and value.
//     What does not fit is dropped and counted; it is as if it had not been there.
//  2. It never halts anybody. A Fetch waits no longer than what was learned of the cache, and of the storage behind it,
//     allows. A server that is late or broken again and again is left alone, and probed in the background.
//  3. It fits its budget. Memory has a bound in bytes; what waits to be written has a bound too, past which it is
//     dropped and counted.
//
// Keys in shared servers begin with a prefix of our own, so that other programs may use the same servers.
package cache
