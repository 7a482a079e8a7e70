// Package writev2pb is the body of a remote-write 2.0 request.
package writev2pb
