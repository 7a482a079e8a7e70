//go:build !linux

package fleet

import "syscall"

// withoutOrphans does nothing where the kernel can't: a test that is cut off leaves its programs behind.
func withoutOrphans() *syscall.SysProcAttr { return nil }
