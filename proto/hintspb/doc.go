// Package hintspb is the messages in the hints fields of the StoreAPI.
package hintspb
