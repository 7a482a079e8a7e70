# Koios: build, test and run. `make` alone lists what there is.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN   := $(CURDIR)/.bin
GO    ?= go
# How long each benchmark runs: a time or a number of rounds (1x).
BENCHTIME ?= 1s
# The tests that start real processes. They belong to `make e2e`; the rest to `make test` and `make race`.
E2E   := ./test/integration/...
UNIT  := $$($(GO) list ./... | grep -v '/test/integration')

GOLANGCI_LINT_VERSION      := v2.15.0
BUF_VERSION                := v1.75.0
PROTOC_GEN_GO_VERSION      := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2

VERSION  := $(shell cat VERSION)
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BRANCH   := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
V        := github.com/prometheus/common/version
LDFLAGS  := -X $(V).Version=$(VERSION) -X $(V).Revision=$(REVISION) -X $(V).Branch=$(BRANCH)

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Start Koios over ./data: scrapes itself, answers PromQL on http://localhost:10902
	@$(GO) build -ldflags '$(LDFLAGS)' -o bin/koios ./cmd/koios
	@exec bin/koios standalone --data-dir=data $(ARGS)

.PHONY: build
build: ## Build all binaries into ./bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $$($(GO) list ./cmd/... | grep -v /components)

# The images. DOCKER=podman should do as well.
DOCKER      ?= docker
IMAGE_FILES ?= $(CURDIR)/.bin/image
IMAGE_TAG   ?= $(VERSION)
# The programs that have an image of their own; koios is in the one that has all.
IMAGE_ONES  := sidecar store query query-frontend compact tools
# What of busybox has a name in the images.
IMAGE_TOOLS := sh wget kill cat ls ps df env id sleep head tail grep nslookup

.PHONY: image-programs
image-programs: ## Build the static programs that images are made of (IMAGE_PROGRAMS="koios store")
	@mkdir -p $(IMAGE_FILES)/programs
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w $(LDFLAGS)' -o $(IMAGE_FILES)/programs/ $(addprefix ./cmd/,$(or $(IMAGE_PROGRAMS),koios $(IMAGE_ONES)))

.PHONY: image-files
image-files: image-programs ## Lay out the files of the images; needs Debian's busybox-static and ca-certificates
	@test -x /bin/busybox && ! ldd /bin/busybox >/dev/null 2>&1 || { echo "a static /bin/busybox is needed: apt-get install busybox-static" >&2; exit 1; }
	@test -s /etc/ssl/certs/ca-certificates.crt || { echo "certificate authorities are needed: apt-get install ca-certificates" >&2; exit 1; }
	@rm -rf $(IMAGE_FILES)/base $(IMAGE_FILES)/names
	@mkdir -p $(IMAGE_FILES)/base/{bin,etc/ssl/certs,tmp,data} $(IMAGE_FILES)/names/{bin,opt/bitnami/thanos/bin}
	@chmod 1777 $(IMAGE_FILES)/base/tmp && chmod 0777 $(IMAGE_FILES)/base/data
	@cp /bin/busybox $(IMAGE_FILES)/base/bin/ && for tool in $(IMAGE_TOOLS); do ln -s busybox $(IMAGE_FILES)/base/bin/$$tool; done
	@cp -L /etc/ssl/certs/ca-certificates.crt $(IMAGE_FILES)/base/etc/ssl/certs/
	@echo 'root:x:0:0:root:/:/bin/sh' > $(IMAGE_FILES)/base/etc/passwd && echo 'nobody:x:65534:65534:nobody:/data:/bin/sh' >> $(IMAGE_FILES)/base/etc/passwd
	@printf 'root:x:0:\nnogroup:x:65534:\n' > $(IMAGE_FILES)/base/etc/group
	@ln -s koios $(IMAGE_FILES)/names/bin/thanos && ln -s /bin/koios $(IMAGE_FILES)/names/opt/bitnami/thanos/bin/thanos

# The stage that compiles is replaced by an image of what was compiled here, so that nothing is pulled.
image-stage = sed 's|^FROM .* AS programs$$|FROM koios-programs AS programs|; /^FROM koios-programs /,/^$$/{/^FROM/!d}' Dockerfile
image-build = printf 'FROM scratch\nCOPY . /image\n' | $(DOCKER) build -q -t koios-programs -f - $(IMAGE_FILES) >/dev/null

.PHONY: image
image: ## Build the image with all components, koios:VERSION, without a registry
	@$(MAKE) --no-print-directory image-files IMAGE_PROGRAMS=koios
	@$(image-build)
	@mkdir -p $(IMAGE_FILES)/empty
	@$(image-stage) | $(DOCKER) build -q --target everything -t koios:$(IMAGE_TAG) -f - $(IMAGE_FILES)/empty

.PHONY: images
images: image-files ## Build all images, koios:VERSION and one for each component, without a registry
	@$(image-build)
	@mkdir -p $(IMAGE_FILES)/empty
	@for one in $(IMAGE_ONES); do $(image-stage) | $(DOCKER) build -q --target koios-$$one -t koios-$$one:$(IMAGE_TAG) -f - $(IMAGE_FILES)/empty; done
	@$(image-stage) | $(DOCKER) build -q --target koios -t koios:$(IMAGE_TAG) -f - $(IMAGE_FILES)/empty

.PHONY: test
test: $(BIN)/prometheus ## Run all tests: unit, conformance, and integration with real Prometheus servers
	KOIOS_PROMETHEUS=$(BIN)/prometheus $(GO) test -timeout=20m ./...

.PHONY: unit
unit: ## Run the unit and conformance tests only
	$(GO) test $(UNIT)

.PHONY: race
race: $(BIN)/prometheus ## Run all tests with the race detector
	KOIOS_PROMETHEUS=$(BIN)/prometheus $(GO) test -race -timeout=20m ./...

.PHONY: e2e
e2e: engine $(BIN)/prometheus ## Run the end-to-end tests: real processes on this machine, then fleets in containers (needs Docker)
	KOIOS_PROMETHEUS=$(BIN)/prometheus $(GO) test -count=1 -timeout=20m $(E2E)
	@$(MAKE) --no-print-directory stories

# STORIES=TestPair tells one.
STORIES ?= .
.PHONY: stories
stories: engine image $(BIN)/prometheus $(BIN)/versitygw ## Run the end-to-end tests in containers only: Koios from its image beside Prometheus, S3, caches and nginx
	KOIOS_IMAGE=koios:$(IMAGE_TAG) KOIOS_PROMETHEUS=$(BIN)/prometheus KOIOS_S3=$(BIN)/versitygw E2E_TEMP_DIR=$${TMPDIR:-/tmp} \
		$(GO) test -count=1 -tags=e2e -timeout=20m -run='$(STORIES)' -v ./test/e2e

.PHONY: engine
engine:
	@$(DOCKER) version >/dev/null 2>&1 || { echo "the end-to-end tests need a running Docker engine: install docker.io and start dockerd" >&2; exit 1; }

.PHONY: campaign
campaign: campaign-faults campaign-cache campaign-startup campaign-dedup campaign-worlds million campaign-promql ## Run all long tests, one after the other

.PHONY: campaign-faults
campaign-faults: ## Ask ten stores of which some stall or die at random
	$(GO) test -count=1 -tags=campaign -run=Campaign -timeout=60m -v ./pkg/store/fanout

.PHONY: compat
compat: $(BIN)/prometheus ## Run the tests beside a real Thanos: make compat THANOS=/path/of/thanos
	@test -x "$(THANOS)" || { echo "name a Thanos program: make compat THANOS=/path/of/thanos" >&2; exit 1; }
	KOIOS_PROMETHEUS=$(BIN)/prometheus KOIOS_THANOS=$(THANOS) $(GO) test -count=1 -tags=compat -run=BesideThanos -timeout=40m $(E2E) ./pkg/downsample ./pkg/block/merge

.PHONY: compare
compare: ## Measure queries over the same bucket beside a real Thanos: make compare THANOS=/path/of/thanos
	@test -x "$(THANOS)" || { echo "name a Thanos program: make compare THANOS=/path/of/thanos" >&2; exit 1; }
	KOIOS_THANOS=$(THANOS) $(GO) test -count=1 -tags=compat -run=^TestSideBySide$$ -timeout=30m -v ./test/sidebyside

.PHONY: compare-frontend
compare-frontend: ## Measure the query frontend beside a real Thanos's before one querier: make compare-frontend THANOS=/path/of/thanos
	@test -x "$(THANOS)" || { echo "name a Thanos program: make compare-frontend THANOS=/path/of/thanos" >&2; exit 1; }
	KOIOS_THANOS=$(THANOS) $(GO) test -count=1 -tags=compat -run='^TestCompareFrontend$$|^TestCompareDashboard$$' -timeout=120m -v ./test/sidebyside

# A smaller run: SERIES=700 HOURS=4.
SERIES ?= 6944
HOURS  ?= 24
.PHONY: bench-compare
bench-compare: ## Measure the store gateway beside another program over one bucket of 160M samples: make bench-compare PEER=/path/of/thanos
	@test -x "$(PEER)" || { echo "name a program: make bench-compare PEER=/path/of/thanos" >&2; exit 1; }
	KOIOS_PEER=$(PEER) KOIOS_COMPARE_SERIES=$(SERIES) KOIOS_COMPARE_HOURS=$(HOURS) $(GO) test -count=1 -tags=compat -timeout=60m -v ./test/storecompare

# MILLIONS=full is what the targets are about: 85 downsampled, 165 compacted. STRICT=1 fails where one is missed.
MILLIONS ?= 20
ROUNDS   ?= 3
.PHONY: compare-compact
compare-compact: ## Measure koios compact beside thanos compact over copies of one bucket: make compare-compact THANOS=/path/of/thanos MILLIONS=20 ROUNDS=3
	@test -x "$(THANOS)" || { echo "name a Thanos program: make compare-compact THANOS=/path/of/thanos" >&2; exit 1; }
	KOIOS_THANOS=$(THANOS) KOIOS_COMPARE_MILLIONS=$(MILLIONS) KOIOS_COMPARE_ROUNDS=$(ROUNDS) KOIOS_COMPARE_STRICT=$(STRICT) \
		$(GO) test -count=1 -tags=compat -run=^TestCompactBesideThanos$$ -timeout=60m -v ./test/sidebyside

.PHONY: campaign-compact
campaign-compact: ## Compact and downsample a group of five million series within 1 GiB of memory and 4 GiB of disk, in a control group (needs root)
	$(GO) test -count=1 -tags=campaign -timeout=0 -run='^TestFiveMillionSeries$$' -v ./test/million

# A run that was ended goes on where it was, as .bin/campaign/crash.json says.
RUNS ?= 200
.PHONY: campaign-crash
campaign-crash: $(BIN)/versitygw ## Kill and stop compactors at random on a file system and an S3 server, and look at what they leave (RUNS=200)
	@mkdir -p $(BIN)/campaign
	KOIOS_S3=$(BIN)/versitygw KOIOS_CRASH_RUNS=$(RUNS) KOIOS_CRASH_STATE=$(BIN)/campaign/crash.json \
		$(GO) test -count=1 -timeout=0 -v ./test/crash

SIMULATIONS ?= 1000
.PHONY: campaign-retention
campaign-retention: ## Simulate outages and retention settings, and look for holes (FIRST=0 SIMULATIONS=1000); FIRST goes on
	KOIOS_COMPACT_SIMULATIONS=$(SIMULATIONS) FIRST=$(FIRST) $(GO) test -count=1 -timeout=0 -run='^TestRetentionLeavesNoHole$$' -v ./pkg/compact

.PHONY: campaign-defects
campaign-defects: ## Compact buckets of 100 groups of which 20 are bad, in one pass (THANOS=path lets that one try too)
	KOIOS_THANOS=$(THANOS) $(GO) test -count=1 -tags=campaign -timeout=0 -run='^TestCampaign$$' -v ./test/defects

# A run that was ended goes on where it was; FIRST and QUERIES=1 look at one query.
SEED    ?= 1
QUERIES ?= 100000
FIRST   ?= 0
.PHONY: campaign-promql
campaign-promql: ## Ask generated queries as Prometheus and as Koios (SEED=1 QUERIES=100000)
	$(GO) test -count=1 -tags=campaign -timeout=0 -run=TestCampaign -v ./test/promqlcompat \
		-seed=$(SEED) -queries=$(QUERIES) -first=$(FIRST) -state=$(BIN)/campaign/$(SEED)-$(FIRST).json

CASES ?= 1000000
.PHONY: campaign-store
campaign-store: ## Ask generated blocks as Koios and as Prometheus's own reader (SEED=1 CASES=1000000)
	@mkdir -p $(BIN)/campaign
	KOIOS_STORE_CASES=$(CASES) KOIOS_STORE_SEED=$(SEED) KOIOS_STORE_STATE=$(BIN)/campaign/store-$(SEED).json \
		$(GO) test -count=1 -timeout=0 -run='^TestLikePrometheus$$' -v ./pkg/store/bucket

SEQUENCES ?= 1000
.PHONY: campaign-frontend
campaign-frontend: ## Ask sequences of generated questions of frontends and their querier (FIRST=0 SEQUENCES=1000 SEED=1 QUERIES=10000); with STATE=/path/to/file it goes on where it ended
	GOGC=off GOMEMLIMIT=1GiB KOIOS_FRONTEND_SEQUENCES=$(SEQUENCES) FIRST=$(FIRST) KOIOS_FRONTEND_STATE=$(STATE) $(GO) test -count=1 -timeout=0 -run='^TestRangesEqualTheQueriers$$' -v ./test/frontend
	KOIOS_FRONTEND_QUERIES=$(QUERIES) SEED=$(SEED) $(GO) test -count=1 -timeout=0 -run='^TestShardsEqualTheWhole$$' -v ./test/frontend

.PHONY: campaign-frontend-cache
campaign-frontend-cache: ## Kill, stop, fill and damage memcached and Redis behind a frontend's process, and compare its answers
	KOIOS_FRONTEND_REQUESTS=1000 $(GO) test -count=1 -timeout=0 -run='^TestProcessWithRealCaches$$' -v ./test/frontend

.PHONY: hostile
hostile: ## Ask a store of 512 MiB for everything of 1.2 million series, 500 times and 20 at once; needs root
	KOIOS_HOSTILE_SERIES=1200000 KOIOS_HOSTILE_REQUESTS=500 KOIOS_HOSTILE_MIB=512 KOIOS_HOSTILE_STRICT=1 \
		$(GO) test -count=1 -timeout=0 -v ./test/hostile

.PHONY: campaign-cache
campaign-cache: ## Kill, stop and damage memcached and Redis under a store, and compare its slowest requests with those of one without
	KOIOS_CACHE_REQUESTS=150 KOIOS_CACHE_BUCKET_MS=20 KOIOS_CACHE_STRICT=1 $(GO) test -count=1 -timeout=0 -v ./test/cachefaults

.PHONY: bench
bench: ## Run the benchmarks
	$(GO) test -run='^$$' -bench=. -benchtime=$(BENCHTIME) -benchmem $(UNIT)

.PHONY: million
million: ## Aggregate a million series in two replicas within 512 MiB of memory, in a control group of 640 MiB (needs root)
	$(GO) test -count=1 -tags=campaign -timeout=0 -run='^TestMillion$$' -v ./test/million

.PHONY: dedup-accuracy
dedup-accuracy: ## Print how far increase[5m] over merged replicas is from the truth, beside a perfect replica and Thanos
	$(GO) test -count=1 -run='^TestAccuracy$$' -v ./pkg/dedup

.PHONY: campaign-startup
campaign-startup: ## Start a store over 10,000 blocks in a bucket 30 ms away (THANOS=path compares)
	THANOS=$(THANOS) $(GO) test -count=1 -tags=campaign -timeout=0 -run='^TestCampaign$$' -v ./test/startup

.PHONY: campaign-dedup
campaign-dedup: ## Run the property tests of deduplication over 10,000 generated pairs each
	KOIOS_DEDUP_PAIRS=10000 $(GO) test -count=1 -timeout=30m ./pkg/dedup
	KOIOS_DEDUP_PAIRS=10000 $(GO) test -count=1 -timeout=30m -run='^TestFloatsAsIterators$$' ./pkg/query

WORLDS ?= 200
.PHONY: campaign-worlds
campaign-worlds: ## Ask generated replicas in every shape and range for the same samples (FIRST=0 WORLDS=200)
	KOIOS_FIRST=$(FIRST) KOIOS_WORLDS=$(WORLDS) $(GO) test -count=1 -timeout=0 -run=Whatever -v ./pkg/query

.PHONY: mutants
MUTANTS ?= all
mutants: ## Put small faults into the code and see that the tests named for them fail (MUTANTS=regexp)
	KOIOS_MUTANTS='$(MUTANTS)' $(GO) test -count=1 -timeout=0 -run='^TestMutants$$' -v ./test/mutants

.PHONY: lint
lint: $(BIN)/golangci-lint ## Run the linters
	$(BIN)/golangci-lint run

.PHONY: proto
proto: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc ## Generate the Go code of the wire messages
	cd proto && PATH="$(BIN):$$PATH" $(BIN)/buf lint && PATH="$(BIN):$$PATH" $(BIN)/buf generate

.PHONY: mixin
mixin: ## Generate alerts and dashboards of the tables in deploy/mixin
	$(GO) run ./deploy/mixin deploy/mixin

.PHONY: render
render: ## Render the Helm chart and the Kustomize folders into test/render/testdata
	cd test/render && $(GO) run .

.PHONY: check
check: lint proto mixin ## Check what review would: linters, go.mod, generated code without drift
	$(GO) mod tidy -diff
	cd test/tools && $(GO) mod tidy -diff
	git diff --exit-code -- proto deploy/mixin
	test -z "$$(git status --porcelain -- proto deploy/mixin)"

.PHONY: tools
tools: $(BIN)/prometheus $(BIN)/golangci-lint $(BIN)/buf ## Build the tools that tests and checks use into ./.bin

$(BIN)/prometheus: test/tools/go.mod
	cd test/tools && $(GO) build -o $(BIN)/prometheus github.com/prometheus/prometheus/cmd/prometheus
	touch $@
$(BIN)/versitygw: test/tools/s3/go.mod
	cd test/tools/s3 && $(GO) build -o $(BIN)/versitygw github.com/versity/versitygw/cmd/versitygw
	touch $@
$(BIN)/golangci-lint:
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
$(BIN)/buf:
	GOBIN=$(BIN) $(GO) install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)
$(BIN)/protoc-gen-go:
	GOBIN=$(BIN) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
$(BIN)/protoc-gen-go-grpc:
	GOBIN=$(BIN) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION)
