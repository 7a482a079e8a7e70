// Package labelpb is labels on the wire, used by every other message.
package labelpb
