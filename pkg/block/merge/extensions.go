package merge

import "encoding/json"

// commonExtensions keeps the keys that every input has which has extensions at all, with the values of the first of
// these.
func commonExtensions(inputs []Input) json.RawMessage {
	var kept map[string]json.RawMessage
	for _, in := range inputs {
		var own map[string]json.RawMessage
		if err := json.Unmarshal(in.Meta.Thanos.Extensions, &own); err != nil || own == nil {
			continue // none, or not a map
		}
		if kept == nil {
			kept = own
			continue
		}
		for k := range kept {
			if _, ok := own[k]; !ok {
				delete(kept, k)
			}
		}
	}
	if len(kept) == 0 {
		return nil
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return nil // what was decoded can be encoded
	}
	return b
}
