package faulty

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// Always has the same fault for every request.
func Always(f Fault) Plan { return func(Call) Fault { return f } }

// Nth has a fault for the n-th request that it is asked about, from 1.
func Nth(n int, f Fault) Plan {
	return counted(func(i int) bool { return i == n }, f)
}

// Until has a fault for the first n requests that it is asked about.
func Until(n int, f Fault) Plan {
	return counted(func(i int) bool { return i <= n }, f)
}

// After has a fault for each request that it is asked about after the first n.
func After(n int, f Fault) Plan {
	return counted(func(i int) bool { return i > n }, f)
}

func counted(hit func(i int) bool, f Fault) Plan {
	var mu sync.Mutex
	i := 0
	return func(Call) Fault {
		mu.Lock()
		defer mu.Unlock()
		if i++; hit(i) {
			return f
		}
		return Fault{}
	}
}

// Sometimes has a fault for a share of the requests, drawn from a seed.
func Sometimes(seed uint64, share float64, f Fault) Plan {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 1))
	return func(Call) Fault {
		mu.Lock()
		defer mu.Unlock()
		if rnd.Float64() < share {
			return f
		}
		return Fault{}
	}
}

// On asks a plan about some operations only.
func On(p Plan, ops ...Op) Plan {
	return func(c Call) Fault {
		if slices.Contains(ops, c.Op) {
			return p(c)
		}
		return Fault{}
	}
}

// Named asks a plan about objects only whose names contain something.
func Named(p Plan, part string) Plan {
	return func(c Call) Fault {
		if strings.Contains(c.Name, part) {
			return p(c)
		}
		return Fault{}
	}
}

// FirstOf asks plans one after the other, until one has a fault.
func FirstOf(ps ...Plan) Plan {
	return func(c Call) Fault {
		for _, p := range ps {
			if f := p(c); f != (Fault{}) {
				return f
			}
		}
		return Fault{}
	}
}
