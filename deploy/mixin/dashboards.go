package main

// jobs narrows an expression to the jobs that are chosen on the page.
const jobs = `job=~"$job"`

func one(title, unit, expr, legend string) panel {
	return panel{title: title, unit: unit, targets: []target{{expr, legend}}}
}

// quantiles shows the median and the slowest hundredth of a histogram.
func quantiles(title, histogram, by, legend string) panel {
	q := func(q string) string {
		return "histogram_quantile(" + q + ", sum by (" + by + ", le) (rate(" + histogram + "[$__rate_interval])))"
	}
	return panel{title: title, unit: "s", targets: []target{{q("0.5"), legend + " p50"}, {q("0.99"), legend + " p99"}}}
}

func rate(title, unit, counter, by string) panel {
	return one(title, unit, "sum by ("+by+") (rate("+counter+"[$__rate_interval]))", "{{"+by+"}}")
}

// part is the failed part of a counter.
func part(title, failed, all, by string) panel {
	return one(title, "percentunit", "sum by ("+by+") (rate("+failed+"[$__rate_interval])) / sum by ("+by+") (rate("+all+"[$__rate_interval]))", "{{"+by+"}}")
}

// http is the row of an HTTP API.
func http(handlers string) row {
	sel := `handler=~"` + handlers + `", ` + jobs
	return row{"HTTP", []panel{
		rate("Requests", "reqps", "http_requests_total{"+sel+"}", "handler"),
		part("Errors", `http_requests_total{code=~"5..", `+sel+`}`, "http_requests_total{"+sel+"}", "handler"),
		quantiles("Duration", "http_request_duration_seconds_bucket{"+sel+"}", "handler", "{{handler}}"),
	}}
}

var storeAPI = row{"StoreAPI", []panel{
	rate("Calls", "reqps", `grpc_server_handled_total{grpc_service=~"thanos.*", `+jobs+`}`, "grpc_method"),
	part("Errors", `grpc_server_handled_total{grpc_service=~"thanos.*", grpc_code!="OK", `+jobs+`}`, `grpc_server_handled_total{grpc_service=~"thanos.*", `+jobs+`}`, "grpc_method"),
	quantiles("Duration", `grpc_server_handling_seconds_bucket{grpc_service=~"thanos.*", `+jobs+`}`, "grpc_method", "{{grpc_method}}"),
}}

var bucket = row{"Bucket", []panel{
	rate("Requests", "reqps", "thanos_objstore_bucket_operations_total{"+jobs+"}", "operation"),
	part("Errors", "thanos_objstore_bucket_operation_failures_total{"+jobs+"}", "thanos_objstore_bucket_operations_total{"+jobs+"}", "operation"),
	quantiles("Duration", "thanos_objstore_bucket_operation_duration_seconds_bucket{"+jobs+"}", "operation", "{{operation}}"),
}}

var resources = row{"Resources", []panel{
	one("CPU", "none", "rate(process_cpu_seconds_total{"+jobs+"}[$__rate_interval])", "{{instance}}"),
	one("Resident memory", "bytes", "process_resident_memory_bytes{"+jobs+"}", "{{instance}}"),
	one("Goroutines", "none", "go_goroutines{"+jobs+"}", "{{instance}}"),
}}

var dashboards = []dashboard{
	{"overview", "Koios / Overview", []row{
		{"State", []panel{
			one("Ready", "none", `sum by (component) (thanos_status{check="ready", `+jobs+`})`, "{{component}}"),
			one("Versions", "none", "count by (version) (thanos_build_info{"+jobs+"})", "{{version}}"),
			one("Endpoints of queriers", "none", "sum by (store_type) (thanos_store_nodes_grpc_connections{"+jobs+"})", "{{store_type}}"),
		}},
		http("query|query_range|query-frontend"), storeAPI, bucket, resources,
	}},
	{"query", "Koios / Query", []row{
		http("query|query_range|series|label_names|label_values"),
		{"Work", []panel{
			one("Queries at a time", "none", "thanos_query_concurrent_gate_queries_in_flight{"+jobs+"}", "{{instance}}"),
			quantiles("Waiting for a place", "thanos_query_concurrent_gate_queries_duration_seconds_bucket{"+jobs+"}", "job", "{{job}}"),
			rate("Queries left to Prometheus's engine", "reqps", "koios_query_engine_fallbacks_total{"+jobs+"}", "reason"),
			rate("Streamed aggregations", "ops", "koios_query_streamed_aggregations_total{"+jobs+"}", "instance"),
			rate("Compared by both engines", "ops", "koios_query_shadow_total{"+jobs+"}", "result"),
			rate("Empty answers of endpoints", "ops", "thanos_proxy_store_empty_stream_responses_total{"+jobs+"}", "instance"),
		}},
		{"Endpoints", []panel{
			one("Endpoints", "none", "sum by (store_type, external_labels) (thanos_store_nodes_grpc_connections{"+jobs+"})", "{{store_type}} {{external_labels}}"),
			rate("Failed DNS lookups", "ops", "thanos_query_endpoints_dns_failures_total{"+jobs+"}", "instance"),
			{"Endpoints that stand in for others", "ops", []target{
				{"sum(rate(koios_fanout_hedges_total{" + jobs + "}[$__rate_interval]))", "asked, since another is late"},
				{"sum(rate(koios_fanout_overtaken_total{" + jobs + "}[$__rate_interval]))", "were faster"},
				{"sum(rate(koios_fanout_takeovers_total{" + jobs + "}[$__rate_interval]))", "went on for one that failed"},
			}},
		}},
		resources,
	}},
	{"store", "Koios / Store", []row{
		storeAPI,
		{"Blocks", []panel{
			one("Served", "none", "thanos_bucket_store_blocks_loaded{"+jobs+"}", "{{instance}}"),
			rate("Can't be opened", "ops", "thanos_bucket_store_block_load_failures_total{"+jobs+"}", "instance"),
			rate("Damaged", "ops", "koios_store_damaged_blocks_total{"+jobs+"}", "part"),
		}},
		{"Requests", []panel{
			one("At a time", "none", "thanos_bucket_store_series_gate_queries_in_flight{"+jobs+"}", "{{instance}}"),
			quantiles("Waiting for a place", "thanos_bucket_store_series_gate_queries_duration_seconds_bucket{"+jobs+"}", "job", "{{job}}"),
			rate("Refused by limits", "ops", "thanos_bucket_store_queries_dropped_total{"+jobs+"}", "reason"),
		}},
		{"Caches", []panel{
			part("Hits of the index cache", "thanos_store_index_cache_hits_total{"+jobs+"}", "thanos_store_index_cache_requests_total{"+jobs+"}", "item_type"),
			one("Size of the index cache", "bytes", "sum by (instance) (thanos_store_index_cache_total_size_bytes{"+jobs+"})", "{{instance}}"),
			part("Hits of the caching bucket", "thanos_store_bucket_cache_operation_hits_total{"+jobs+"}", "thanos_store_bucket_cache_operation_requests_total{"+jobs+"}", "operation"),
		}},
		bucket, resources,
	}},
	{"sidecar", "Koios / Sidecar", []row{
		{"Prometheus", []panel{
			one("Reachable", "none", "thanos_sidecar_prometheus_up{"+jobs+"}", "{{instance}}"),
			one("Configuration taken", "none", "thanos_sidecar_reloader_last_reload_successful{"+jobs+"}", "{{instance}}"),
		}},
		{"Uploads", []panel{
			rate("Uploads", "ops", "thanos_shipper_uploads_total{"+jobs+"}", "instance"),
			rate("Failures", "ops", "thanos_shipper_upload_failures_total{"+jobs+"}", "instance"),
			one("Since the last upload", "s", "time() - (thanos_objstore_bucket_last_successful_upload_time{"+jobs+"} > 0) and on (job, instance) thanos_shipper_uploads_total", "{{instance}}"),
		}},
		storeAPI, bucket, resources,
	}},
	{"compact", "Koios / Compactor", []row{
		{"State", []panel{
			one("Set aside for a person", "none", "thanos_compact_halted{"+jobs+"}", "{{instance}}"),
			one("Since the last progress", "s", "time() - (koios_compact_last_progress_timestamp_seconds{"+jobs+"} > 0)", "{{instance}}"),
			one("Steps that wait for another try", "none", "koios_compact_waiting_steps{"+jobs+"}", "{{instance}}"),
		}},
		{"Still to do", []panel{
			one("Blocks to compact", "none", "thanos_compact_todo_compaction_blocks{"+jobs+"}", "{{instance}}"),
			one("Blocks to downsample", "none", "thanos_compact_todo_downsample_blocks{"+jobs+"}", "{{instance}}"),
			one("Blocks to delete", "none", "thanos_compact_todo_deletion_blocks{"+jobs+"}", "{{instance}}"),
		}},
		{"Done", []panel{
			rate("Compactions", "ops", "thanos_compact_group_compactions_total{"+jobs+"}", "instance"),
			rate("Failed compactions", "ops", "thanos_compact_group_compactions_failures_total{"+jobs+"}", "instance"),
			rate("Downsampled blocks", "ops", "thanos_compact_downsample_total{"+jobs+"}", "instance"),
			rate("Failed downsampling", "ops", "thanos_compact_downsample_failures_total{"+jobs+"}", "instance"),
			rate("Marked", "ops", "thanos_compact_blocks_marked_total{"+jobs+"}", "marker"),
			rate("Deleted", "ops", "thanos_compact_blocks_cleaned_total{"+jobs+"}", "instance"),
		}},
		bucket, resources,
	}},
	{"query-frontend", "Koios / Query frontend", []row{
		http("query-frontend"),
		{"Queue", []panel{
			one("Waiting", "none", "koios_frontend_queue_length{"+jobs+"}", "{{instance}}"),
			quantiles("Wait", "koios_frontend_queue_duration_seconds_bucket{"+jobs+"}", "job", "{{job}}"),
			rate("Refused", "reqps", "koios_frontend_queue_refused_total{"+jobs+"}", "waiting"),
		}},
		{"Parts", []panel{
			rate("Queries", "reqps", "thanos_query_frontend_queries_total{"+jobs+"}", "op"),
			rate("Parts of ranges", "reqps", "thanos_frontend_split_queries_total{"+jobs+"}", "tripperware"),
			rate("Steps", "ops", "koios_frontend_steps_total{"+jobs+"}", "from"),
		}},
		{"Results cache", []panel{
			part("Hits", "cortex_cache_hits_total{"+jobs+"}", "cortex_cache_fetched_keys_total{"+jobs+"}", "name"),
			rate("Queries that can't be kept", "reqps", "koios_frontend_uncacheable_queries_total{"+jobs+"}", "reason"),
			rate("Entries that can't be read", "ops", "koios_frontend_unreadable_entries_total{"+jobs+"}", "instance"),
		}},
		resources,
	}},
}
