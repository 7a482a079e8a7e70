package cache

import "github.com/koios-metrics/koios/pkg/size"

// Bytes is a size in bytes. In YAML it is a number, or a number with a unit; K, KB and KiB are all 1024 bytes, and so on.
type Bytes int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (b *Bytes) UnmarshalYAML(unmarshal func(any) error) error {
	var s string
	if err := unmarshal(&s); err != nil {
		return err
	}
	n, err := size.Parse(s, size.Binary)
	if err != nil {
		return err
	}
	*b = Bytes(n)
	return nil
}
