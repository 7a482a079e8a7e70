package endpoint

// Component is the kind of a peer, as the /api/v1/stores page calls it.
type Component string

// The components that peers can be.
const (
	Query   Component = "query"
	Rule    Component = "rule"
	Sidecar Component = "sidecar"
	Gateway Component = "store"
	Receive Component = "receive"
	Debug   Component = "debug"
	Unknown Component = "unknown-store-api"
)

// componentOf reads the kind from an Info answer.
func componentOf(s string) Component {
	switch c := Component(s); c {
	case Query, Rule, Sidecar, Gateway, Receive, Debug:
		return c
	}
	return Unknown
}
