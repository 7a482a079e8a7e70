package fleet

import "syscall"

// withoutOrphans makes programs end with the test that started them, also when that one is cut off by its
// time limit and cleans nothing up.
func withoutOrphans() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
