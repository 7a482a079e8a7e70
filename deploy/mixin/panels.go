package main

import "encoding/json"

// dashboard is one of Grafana's, with a row of panels for each topic.
type dashboard struct {
	file, title string
	rows        []row
}

type row struct {
	title  string
	panels []panel
}

// panel shows one or more expressions over time.
type panel struct {
	title, unit string
	targets     []target
}

type target struct{ expr, legend string }

// Where panels stand: three in a row of Grafana's 24 columns.
const (
	panelsInRow = 3
	panelWidth  = 24 / panelsInRow
	panelHeight = 7
)

// json writes the dashboard as Grafana reads it. The data source is chosen on the page.
func (d dashboard) json() ([]byte, error) {
	source := map[string]any{"type": "prometheus", "uid": "${datasource}"}
	var panels []map[string]any
	id, y := 0, 0
	for _, r := range d.rows {
		id++
		panels = append(panels, map[string]any{"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []any{}, "gridPos": grid(0, y, 24, 1)})
		y++
		for i, p := range r.panels {
			if i > 0 && i%panelsInRow == 0 {
				y += panelHeight
			}
			id++
			var targets []map[string]any
			for j, t := range p.targets {
				targets = append(targets, map[string]any{"refId": string(rune('A' + j)), "expr": t.expr, "legendFormat": t.legend, "datasource": source})
			}
			panels = append(panels, map[string]any{
				"id": id, "type": "timeseries", "title": p.title, "datasource": source, "targets": targets,
				"gridPos":     grid(i%panelsInRow*panelWidth, y, panelWidth, panelHeight),
				"fieldConfig": map[string]any{"defaults": map[string]any{"unit": p.unit, "min": 0}, "overrides": []any{}},
				"options":     map[string]any{"legend": map[string]any{"displayMode": "list", "placement": "bottom"}, "tooltip": map[string]any{"mode": "multi"}},
			})
		}
		y += panelHeight
	}
	text, err := json.MarshalIndent(map[string]any{
		"uid": "koios-" + d.file, "title": d.title, "tags": []string{"koios"}, "schemaVersion": 39, "version": 1, "editable": true,
		"timezone": "", "refresh": "1m", "time": map[string]string{"from": "now-6h", "to": "now"},
		"panels": panels, "annotations": map[string]any{"list": []any{}},
		"templating": map[string]any{"list": []any{
			map[string]any{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
			map[string]any{
				"name": "job", "type": "query", "label": "Job", "datasource": source, "refresh": 2, "multi": true, "includeAll": true, "allValue": ".+",
				"query": map[string]string{"query": "label_values(thanos_build_info, job)", "refId": "job"}, "current": map[string]any{"text": "All", "value": "$__all"},
			},
		}},
	}, "", "  ")
	return append(text, '\n'), err
}

func grid(x, y, w, h int) map[string]int { return map[string]int{"x": x, "y": y, "w": w, "h": h} }
