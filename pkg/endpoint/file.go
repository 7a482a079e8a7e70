package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-kit/log"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/discovery"
)

// file is the endpoint file.
type file struct {
	// DefaultClient stands in for the global client settings.
	DefaultClient *clientconf.GRPCOverride `yaml:"default_client_config"`
	Endpoints     []entry                  `yaml:"endpoints"`
}

// entry is one endpoint, from the file or a flag.
type entry struct {
	Address string                   `yaml:"address"`
	Strict  bool                     `yaml:"strict"`
	Group   bool                     `yaml:"group"`
	Service string                   `yaml:"service_config"`
	Client  *clientconf.GRPCOverride `yaml:"client_config"`
}

// parseFile reads and checks the endpoint file.
func parseFile(content []byte, global clientconf.GRPC) (*file, error) {
	f := &file{}
	if err := yaml.UnmarshalStrict(content, f); err != nil {
		return nil, fmt.Errorf("parse endpoints: %w", err)
	}
	if err := f.DefaultClient.Apply(global).Validate(); err != nil {
		return nil, fmt.Errorf("default_client_config: %w", err)
	}
	for i, e := range f.Endpoints {
		if err := e.validate(f.DefaultClient.Apply(global)); err != nil {
			return nil, fmt.Errorf("endpoint %d of the file: %w", i+1, err)
		}
	}
	return f, nil
}

// CheckFile reads an endpoint file and the certificates that it names; all that is wrong with its endpoints is joined.
func CheckFile(content []byte, global clientconf.GRPC, logger log.Logger) error {
	f, err := parseFile(content, global)
	if err != nil {
		return err
	}
	global = f.DefaultClient.Apply(global)
	var errs []error
	if _, err := global.DialOptions(logger); err != nil {
		errs = append(errs, fmt.Errorf("default_client_config: %w", err))
	}
	for _, e := range f.Endpoints {
		if _, err := e.Client.Apply(global).DialOptions(logger); err != nil && e.Client != nil {
			errs = append(errs, fmt.Errorf("client_config of %s: %w", e.Address, err))
		}
	}
	return errors.Join(errs...)
}

func (e *entry) validate(global clientconf.GRPC) error {
	if strings.TrimSpace(e.Address) == "" {
		return errors.New("has no address")
	}
	if err := discovery.Validate(e.Address); err != nil {
		return err
	}
	if e.Strict && !e.Group && discovery.IsDynamic(e.Address) {
		return fmt.Errorf("%s is looked up in DNS, and a strict endpoint has to have a fixed address: make it a group, or not strict", e.Address)
	}
	if e.Service != "" && !e.Group {
		return fmt.Errorf("%s has a service_config, which is for groups only", e.Address)
	}
	if e.Service != "" && !json.Valid([]byte(e.Service)) {
		return fmt.Errorf("the service_config of %s is no JSON", e.Address)
	}
	if err := e.Client.Apply(global).Validate(); err != nil {
		return fmt.Errorf("client_config of %s: %w", e.Address, err)
	}
	return nil
}

// flags are the entries of a Config's lists.
func flags(c *Config) ([]entry, error) {
	var all []entry
	add := func(addrs []string, strict, group bool) {
		for _, a := range addrs {
			all = append(all, entry{Address: a, Strict: strict, Group: group})
		}
	}
	add(c.Endpoints, false, false)
	add(c.Groups, false, true)
	add(c.Strict, true, false)
	add(c.StrictGroups, true, true)
	for _, e := range all {
		if err := e.validate(c.Client); err != nil {
			return nil, fmt.Errorf("endpoint: %w", err)
		}
	}
	return all, nil
}
