package main

import (
	"strings"

	"go.yaml.in/yaml/v2"
)

// runbook is the page that has a section for each alert.
const runbook = "docs/operating.md"

// The severities: somebody gets up, or somebody looks at it tomorrow.
const (
	critical = "critical"
	warning  = "warning"
)

// alert is an alert rule. Metrics say by their names, or by a label of their own, whose they are, so that no expression
// depends on the names of scrape jobs.
type alert struct {
	name, severity, wait string
	expr                 string
	summary, description string
}

// ratio is the part of a counter's increase that matches.
func ratio(by, failed, all string) string {
	return "sum by (" + by + ") (rate(" + failed + "[5m])) / sum by (" + by + ") (rate(" + all + "[5m]))"
}

var alerts = []alert{
	{
		name: "KoiosNotReady", severity: warning, wait: "15m",
		expr:        `thanos_status{check="ready"} == 0`,
		summary:     "{{$labels.component}} {{$labels.instance}} is not ready.",
		description: "It answers probes with 503 for a quarter of an hour, so that nothing is sent to it.",
	},
	{
		name: "KoiosSidecarWithoutPrometheus", severity: critical, wait: "5m",
		expr:        `thanos_sidecar_prometheus_up == 0`,
		summary:     "Sidecar {{$labels.instance}} does not reach its Prometheus.",
		description: "Its recent data is missing from answers, and nothing of it is uploaded.",
	},
	{
		name: "KoiosUploadsFail", severity: warning, wait: "30m",
		expr:        `increase(thanos_shipper_upload_failures_total[30m]) > 0`,
		summary:     "{{$labels.instance}} can't upload a block.",
		description: "It is tried again until it is up. Data is lost only if Prometheus's retention ends before.",
	},
	{
		name: "KoiosUploadsStopped", severity: critical, wait: "30m",
		expr:        `(time() - (thanos_objstore_bucket_last_successful_upload_time > 0) > 3 * 3600) and on (job, instance) thanos_shipper_uploads_total`,
		summary:     "{{$labels.instance}} has uploaded nothing for {{$value | humanizeDuration}}.",
		description: "A block is cut every two hours. Data is lost once Prometheus's retention passes what is not in the bucket.",
	},
	{
		name: "KoiosBlockOfPrometheusCorrupted", severity: warning, wait: "0m",
		expr:        `increase(thanos_shipper_corrupted_blocks_total[1h]) > 0`,
		summary:     "{{$labels.instance}} has found a block of its Prometheus that is damaged.",
		description: "The block is left where it is and is not uploaded.",
	},
	{
		name: "KoiosReloadFails", severity: warning, wait: "10m",
		expr:        `thanos_sidecar_reloader_last_reload_successful == 0`,
		summary:     "Prometheus beside {{$labels.instance}} did not take its new configuration.",
		description: "It runs on with the configuration from before.",
	},
	{
		name: "KoiosQueriesFail", severity: critical, wait: "10m",
		expr:        ratio("job, handler", `http_requests_total{handler=~"query|query_range|query-frontend", code=~"5.."}`, `http_requests_total{handler=~"query|query_range|query-frontend"}`) + " > 0.05",
		summary:     "{{$value | humanizePercentage}} of the {{$labels.handler}} requests to {{$labels.job}} fail.",
		description: "Dashboards and alerts that ask there see errors.",
	},
	{
		name: "KoiosQueriesSlow", severity: warning, wait: "15m",
		expr:        `histogram_quantile(0.99, sum by (job, handler, le) (rate(http_request_duration_seconds_bucket{handler=~"query|query_range"}[5m]))) > 40`,
		summary:     "One in a hundred {{$labels.handler}} requests to {{$labels.job}} takes longer than {{$value | humanizeDuration}}.",
		description: "Queries that take longer than --query.timeout (2m) fail.",
	},
	{
		name: "KoiosQuerierFull", severity: warning, wait: "15m",
		expr:        `thanos_query_concurrent_gate_queries_in_flight >= thanos_query_concurrent_gate_queries_max`,
		summary:     "Querier {{$labels.instance}} works on as many queries as it may.",
		description: "Other queries wait for a place.",
	},
	{
		name: "KoiosEnginesDiffer", severity: warning, wait: "0m",
		expr:        `increase(koios_query_shadow_total{result="different"}[1h]) > 0`,
		summary:     "The two engines of {{$labels.instance}} have answered a query differently.",
		description: "The log has the query. Seen only with --query.shadow-sample.",
	},
	{
		name: "KoiosEndpointNamesFail", severity: warning, wait: "10m",
		expr: ratio("job, instance", `thanos_query_endpoints_dns_failures_total`, `thanos_query_endpoints_dns_lookups_total`) + " > 0.01\nor\n" +
			ratio("job, instance", `thanos_query_endpoint_groups_dns_failures_total`, `thanos_query_endpoint_groups_dns_lookups_total`) + " > 0.01",
		summary:     "{{$value | humanizePercentage}} of the DNS lookups of {{$labels.instance}} fail.",
		description: "Endpoints stay as they were; new ones are not found.",
	},
	{
		name: "KoiosStoreAPIFails", severity: warning, wait: "10m",
		expr:        ratio("job, grpc_method", `grpc_server_handled_total{grpc_service=~"thanos.*", grpc_code=~"Unknown|Internal|Unavailable|DataLoss|ResourceExhausted"}`, `grpc_server_handled_total{grpc_service=~"thanos.*"}`) + " > 0.05",
		summary:     "{{$value | humanizePercentage}} of the {{$labels.grpc_method}} calls to {{$labels.job}} fail.",
		description: "Answers of the queriers above lack its data, and say so.",
	},
	{
		name: "KoiosBucketFails", severity: warning, wait: "15m",
		expr:        ratio("job, operation", `thanos_objstore_bucket_operation_failures_total`, `thanos_objstore_bucket_operations_total`) + " > 0.05",
		summary:     "{{$value | humanizePercentage}} of the {{$labels.operation}} requests of {{$labels.job}} to the bucket fail.",
		description: "Queries over history get gaps or slow, uploads and compaction wait.",
	},
	{
		name: "KoiosBlocksUnseen", severity: warning, wait: "30m",
		expr:        `increase(thanos_blocks_meta_sync_failures_total[30m]) > 0`,
		summary:     "{{$labels.instance}} can't list what is in the bucket.",
		description: "It works with what it saw last: new blocks are not served, or not compacted.",
	},
	{
		name: "KoiosStoreBlocksSetAside", severity: warning, wait: "30m",
		expr:        `increase(thanos_bucket_store_block_load_failures_total[30m]) > 0`,
		summary:     "Store {{$labels.instance}} can't open a block.",
		description: "The block is not served; the others are. It is tried again at each look at the bucket.",
	},
	{
		name: "KoiosStoreBlockDamaged", severity: critical, wait: "0m",
		expr:        `increase(koios_store_damaged_blocks_total[2h]) > 0`,
		summary:     "Store {{$labels.instance}} has read a block whose {{$labels.part}} is damaged.",
		description: "Answers lack what can't be read, and say so.",
	},
	{
		name: "KoiosStoreFull", severity: warning, wait: "15m",
		expr:        `thanos_bucket_store_series_gate_queries_in_flight >= thanos_bucket_store_series_gate_queries_max > 0`,
		summary:     "Store {{$labels.instance}} works on as many requests as it may.",
		description: "Other requests wait for a place.",
	},
	{
		name: "KoiosCompactorHalted", severity: critical, wait: "5m",
		expr:        `thanos_compact_halted == 1`,
		summary:     "Compactor {{$labels.instance}} has set something aside that needs a person.",
		description: "The rest of the bucket is still worked on, unless --compact.stop-on-error is given.",
	},
	{
		name: "KoiosCompactorStalls", severity: critical, wait: "15m",
		expr:        `time() - (koios_compact_last_progress_timestamp_seconds > 0) > 6 * 3600`,
		summary:     "Compactor {{$labels.instance}} has got nothing done for {{$value | humanizeDuration}}.",
		description: "Blocks pile up: queries over long ranges slow down, retention is not applied.",
	},
	{
		name: "KoiosCompactorStepsWait", severity: warning, wait: "6h",
		expr:        `koios_compact_waiting_steps > 0`,
		summary:     "{{$value}} steps of compactor {{$labels.instance}} fail again and again.",
		description: "The log says which, and why.",
	},
	{
		name: "KoiosFrontendRefuses", severity: warning, wait: "10m",
		expr:        `sum by (job, waiting) (increase(koios_frontend_queue_refused_total[10m])) > 0`,
		summary:     "{{$labels.job}} refuses queries, since too many wait ({{$labels.waiting}}).",
		description: "The queriers are not fast enough for what is asked.",
	},
}

// rulesYAML is the rule file.
func rulesYAML() ([]byte, error) {
	var rules []yaml.MapSlice
	for _, a := range alerts {
		rules = append(rules, yaml.MapSlice{
			{Key: "alert", Value: a.name},
			{Key: "expr", Value: a.expr},
			{Key: "for", Value: a.wait},
			{Key: "labels", Value: yaml.MapSlice{{Key: "severity", Value: a.severity}}},
			{Key: "annotations", Value: yaml.MapSlice{
				{Key: "summary", Value: a.summary},
				{Key: "description", Value: a.description},
				{Key: "runbook", Value: runbook + "#" + strings.ToLower(a.name)},
			}},
		})
	}
	text, err := yaml.Marshal(yaml.MapSlice{{Key: "groups", Value: []yaml.MapSlice{{{Key: "name", Value: "koios"}, {Key: "rules", Value: rules}}}}})
	return append([]byte("# Generated by make mixin of deploy/mixin/alerts.go.\n"), text...), err
}
