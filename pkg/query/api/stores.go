package api

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/koios-metrics/koios/pkg/endpoint"
)

// stores lists the endpoints by the kind of component they are.
func (a *API) stores(*http.Request) (*answer, error) {
	byComponent := map[endpoint.Component][]endpoint.Status{}
	if a.cfg.Stores != nil {
		for _, s := range a.cfg.Stores() {
			byComponent[s.Component] = append(byComponent[s.Component], s)
		}
	}
	for _, ss := range byComponent {
		slices.SortFunc(ss, func(x, y endpoint.Status) int { return cmp.Compare(x.Name, y.Name) })
	}
	return &answer{data: byComponent}, nil
}
