// Package storepb is the StoreAPI (thanos.Store), the writing of samples (thanos.WriteableStore), and the types
// that the other services share with them.
package storepb
