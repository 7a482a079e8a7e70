// Package discovery turns addresses as users write them into addresses that can be dialled.
//
// Wherever Koios takes an address it takes a DNS name with a prefix too:
//
//	dns+name:port           the A and AAAA records of name, with port
//	dnssrv+name             the SRV records of name; their targets' A and AAAA records
//	dnssrvnoa+name          the SRV records of name; their targets as they stand
//	dnsdualstack+name:port  the A records of name and, asked for on their own, its AAAA records
//
// A port after an SRV name replaces that of the records. A scheme in front of the name ("dns+http://…")
// is kept in front of each result. DNS resolves such names; Files follows Prometheus's file_sd files.
package discovery
