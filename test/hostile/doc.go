// Package hostile asks a store gateway, run as a process with a memory budget, for far more than it has memory for.
package hostile
