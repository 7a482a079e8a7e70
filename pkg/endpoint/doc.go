// Package endpoint is the live set of peers: who is configured or discovered, who answers, and what each
// of them has.
//
// Three loops feed the set: one looks up DNS names, one reads the endpoint file again, and one asks every
// peer for its Info. A peer is asked for data once it has told what it has, and until its Info fails; a
// strict one is asked always. An unhealthy peer stays in the set, is listed with its error for a while, and
// is back with its first good answer.
package endpoint
