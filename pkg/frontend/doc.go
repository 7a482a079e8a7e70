// Package frontend stands before queriers: it splits long queries, keeps their parts, tries again, shards, limits and
// logs, and its answers are those that the querier would give.
//
// A range query goes down a chain of small handlers, each of which knows nothing of the others:
//
//	limits ─▶ align ─▶ downsampled ─▶ split ─▶ shard ─▶ results cache ─▶ retry ─▶ downstream
//
// Three rules hold for each of them:
//
//  1. What can't be understood is passed on as it came. An expression that does not parse, a parameter that nobody
//     here knows: the querier answers, and its answer, be it an error, is the client's.
//  2. What can't be proven equal is not done. A query is split or sharded only where its parts are known to make up the
//     whole (see splittable and the analysis of shards); the others go down whole.
//  3. What is kept is whole: answers that miss data, or that may still change, are never cached.
package frontend
