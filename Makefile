# Everything that people and CI do here. `make` alone says what there is.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO ?= go
export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false

BIN := bin
TOOLS := $(CURDIR)/$(BIN)/tools
RESULTS := $(BIN)/results
BINARIES := spile spile-sidecar spile-webhook
ROOT := $(filter 0,$(shell id -u))

# Built from their modules when they are needed.
GOLANGCI_LINT := $(TOOLS)/golangci-lint@v2.15.0
KIND := $(TOOLS)/kind@v0.33.0
HELM := $(or $(shell command -v helm),$(TOOLS)/helm@v3.22.0)

# Optional: a command that runs programs on other kernels, a test cluster, a
# command that prints the path of a Jaeger binary.
KERNELS_RUN ?= ../shared/kernels/run
CLUSTER ?= ../shared/cluster/cluster
JAEGER ?= ../shared/jaeger/jaeger

tally = $(GO) run ./build/tally

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build

.PHONY: build
build: ## Build spile, spile-sidecar and spile-webhook into bin/, static
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ $(BINARIES:%=./cmd/%)

.PHONY: pgo
pgo: ## Make the profile by which the compiler optimises the sidecar, from its benchmark
	GOMAXPROCS=1 $(GO) test ./sidecar -run '^$$' -bench Pipeline -benchtime 3s -o $(BIN)/pipeline.test -cpuprofile cmd/spile-sidecar/default.pgo

.PHONY: generate
generate: ## Regenerate what is generated: the BPF object and its Go types (needs clang-14)
	@for tool in clang-14 llvm-strip-14; do command -v $$tool >/dev/null || { \
		echo "generate: $$tool is missing; on Debian and Ubuntu: apt-get install clang-14 llvm-14" >&2; exit 1; }; done
	$(GO) generate ./...

.PHONY: verify-generated
verify-generated: generate ## Fail if regenerating changes a committed file
	@out=$$(git status --porcelain -- bpf); [ -z "$$out" ] || { \
		echo "verify-generated: make generate changes these files; commit what it makes:" >&2; echo "$$out" >&2; git --no-pager diff --stat -- bpf >&2; exit 1; }

.PHONY: image
image: build ## Write the images of the sidecar and the webhook to bin/images, without a container engine
	@mkdir -p $(BIN)/images
	$(GO) run ./build/image -o $(BIN)/images/spile-sidecar.tar -t ghcr.io/spile-dev/spile-sidecar:$(IMAGE_TAG) -roots $(BIN)/spile-sidecar
	$(GO) run ./build/image -o $(BIN)/images/spile-webhook.tar -t ghcr.io/spile-dev/spile-webhook:$(IMAGE_TAG) -user 65532 $(BIN)/spile-webhook

IMAGE_TAG ?= $(VERSION)

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN)

##@ Check

# Of a root user the tests that load BPF programs are demanded; REQUIRE_BPF= lets
# them be skipped where the kernel or a container does not allow it.
export REQUIRE_BPF ?= $(if $(ROOT),1)
TESTFLAGS ?=

.PHONY: test
test: ## Run unit, golden and fuzz-seed tests, as root those of BPF too (TESTFLAGS)
	@[ -n "$(ROOT)" ] || echo "test: not root, so tests that load BPF programs or make network namespaces are skipped"
	@PATH=$(TOOLS)/bin:$$PATH command -v helm >/dev/null || echo "test: no helm, so the chart's tests are skipped; make chart-test builds one and runs them"
	PATH=$(TOOLS)/bin:$$PATH $(GO) test -json -timeout 5m $(TESTFLAGS) ./... | $(tally) -save $(RESULTS)/unit.json

# The packages with goroutines. Package sidecar is not among them: only a program
# with cgo can have the race detector, and such a program cannot drop the
# capabilities of all its threads.
RACE_PACKAGES ?= ./sidecar/capture ./sidecar/export ./webhook/... ./internal/...

.PHONY: race
race: ## Run the tests of the concurrent packages under the race detector (needs gcc)
	@command -v gcc >/dev/null || { echo "race: gcc is missing; on Debian and Ubuntu: apt-get install gcc libc6-dev" >&2; exit 1; }
	REQUIRE_BPF= CGO_ENABLED=1 $(GO) test -json -race -timeout 10m $(RACE_PACKAGES) | $(tally) -save $(RESULTS)/race.json

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME (30s) each
	@grep -rE --include='*_test.go' '^func Fuzz' . | sed -E 's,^(.*)/[^/]*:func (Fuzz[A-Za-z0-9]*).*,\1 \2,' | sort | { status=0; while read -r pkg name; do \
		echo "== $$pkg $$name"; $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$pkg || status=1; \
	done; exit $$status; }

.PHONY: kernels
kernels: ## Run the BPF and capture tests on Linux 5.10, 6.1 and 6.12 (KERNELS, KERNELS_RUN)
	GO="$(GO)" KERNELS_RUN="$(KERNELS_RUN)" RESULTS="$(RESULTS)" build/kernels

.PHONY: conformance
conformance: ## Compare with the access logs of real servers and with tshark (root; test/conformance names the packages)
	@! command -v npm >/dev/null || npm ci --silent --no-audit --no-fund --ignore-scripts --prefix test/conformance/testdata/grpc-js
	CONFORMANCE_KEEP=$(CURDIR)/$(BIN)/conformance $(GO) test -json -tags conformance -count=1 -timeout 60m $(TESTFLAGS) ./test/conformance | $(tally) -save $(RESULTS)/conformance.json

# The Collector is a module of its own, with versions of its own.
.PHONY: collector
collector:
	$(GO) build -C test/collector -trimpath -ldflags '-s -w' -o $(CURDIR)/$(BIN)/collector .

.PHONY: collector-test
collector-test: collector ## Send to a real OpenTelemetry Collector by each protocol, with TLS, and while it is killed
	COLLECTOR=$(CURDIR)/$(BIN)/collector $(GO) test -json -count=1 -run TestCollector ./sidecar/export | $(tally) -save $(RESULTS)/collector.json

.PHONY: jaeger-test
jaeger-test: ## Send to a real Jaeger by each protocol, in a network namespace of its own (root; JAEGER)
	$(GO) test -c -o $(BIN)/export.test ./sidecar/export
	cd sidecar/export && JAEGER="$$($(abspath $(JAEGER)) path)" unshare -n sh -c 'ip link set lo up && exec $(CURDIR)/$(BIN)/export.test -test.run TestJaeger -test.v'

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run golangci-lint, and check that the sidecar has no Kubernetes client
	$(GOLANGCI_LINT) run ./...
	@if $(GO) list -deps ./cmd/spile-sidecar | grep -E '^(k8s|sigs\.k8s)\.io/'; then \
		echo "lint: spile-sidecar depends on the Kubernetes packages above" >&2; exit 1; fi

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the Go code
	$(GOLANGCI_LINT) fmt ./...

.PHONY: chart-test
chart-test: $(HELM) ## Lint the chart and test what it renders
	@mkdir -p $(TOOLS)/bin; [ $(HELM) -ef $(TOOLS)/bin/helm ] || ln -sf $(HELM) $(TOOLS)/bin/helm
	$(HELM) lint --strict charts/spile --set otlp.endpoint=http://collector:4318
	PATH=$(TOOLS)/bin:$$PATH REQUIRE_HELM=1 $(GO) test -json -count=1 ./charts/... | $(tally) -save $(RESULTS)/chart.json

.PHONY: footprint
footprint: image ## Report the sidecar's size, memory at rest and time to attach (root)
	$(GO) run ./test/bench -footprint

.PHONY: bounds
bounds: build ## Put the sidecar through attacks and overload: memory, accounts (root)
	$(GO) run ./test/bench -bounds

.PHONY: bench
bench: image ## Measure what watching costs an application (root; BENCHFLAGS=-help lists what can be chosen)
	$(GO) build -trimpath -o $(BIN)/bench ./test/bench
	$(BIN)/bench $(BENCHFLAGS)

##@ Try

.PHONY: demo
demo: ## Run a small shop in network namespaces and watch it (root; DURATION=10s ends by itself)
	@[ -n "$(ROOT)" ] || { echo "demo: network namespaces and packet capture need root: sudo make demo" >&2; exit 1; }
	@$(MAKE) build BINARIES='spile spile-sidecar'
	$(BIN)/spile demo $(if $(DURATION),--duration $(DURATION))

##@ Cluster

KIND_CLUSTER ?= spile

.PHONY: kind-up
kind-up: $(KIND) ## Make a kind cluster
	$(KIND) create cluster --name $(KIND_CLUSTER) --wait 120s

.PHONY: kind-down
kind-down: $(KIND) ## Delete the kind cluster
	$(KIND) delete cluster --name $(KIND_CLUSTER)

# The test cluster, or else kind, gets the images from archives, Jaeger's among
# them where there is a binary of it to make one from.
ifneq ($(wildcard $(CLUSTER)),)
E2E_LOAD ?= $(abspath $(CLUSTER)) load
else ifeq ($(origin E2E_LOAD),undefined)
E2E_LOAD := $(KIND) load image-archive --name $(KIND_CLUSTER)
e2e: $(KIND)
endif
ifneq ($(wildcard $(JAEGER)),)
export JAEGER_IMAGE := ghcr.io/spile-dev/spile-e2e-jaeger:e2e
endif
export E2E_LOAD

.PHONY: e2e
e2e: IMAGE_TAG := e2e
e2e: image collector ## Test everything on the cluster that KUBECONFIG points at (E2E_LOAD, JAEGER_IMAGE)
	@for tool in kubectl helm; do command -v $$tool >/dev/null || { echo "e2e: $$tool is not in PATH" >&2; exit 1; }; done
	$(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/spile-e2e-app ./test/e2e/app
	$(GO) run ./build/image -o $(BIN)/images/spile-e2e-app.tar -t ghcr.io/spile-dev/spile-e2e-app:e2e -user 65532 $(BIN)/spile-e2e-app
	$(GO) run ./build/image -o $(BIN)/images/collector.tar -t ghcr.io/spile-dev/spile-e2e-collector:e2e -user 65532 $(BIN)/collector
	$(if $(wildcard $(JAEGER)),$(GO) run ./build/image -o $(BIN)/images/jaeger.tar -t $(JAEGER_IMAGE) -user 65532 "$$($(JAEGER) path)=/jaeger")
	$(GO) test -json -tags e2e -count=1 -timeout 30m ./test/e2e | $(tally) -save $(RESULTS)/e2e.json

# cert-manager is a module of its own too; building it takes some minutes of CPU.
CERT_MANAGER_IMAGE := ghcr.io/spile-dev/spile-e2e-certmanager:e2e

.PHONY: certmanager-test
certmanager-test: IMAGE_TAG := e2e
certmanager-test: image ## Have cert-manager make and renew the webhook's certificates while pods are created
	$(GO) build -C test/certmanager -trimpath -ldflags '-s -w' -o $(CURDIR)/$(BIN)/certmanager .
	$(GO) run ./build/image -o $(BIN)/images/certmanager.tar -t $(CERT_MANAGER_IMAGE) -user 65532 $(BIN)/certmanager
	crds="$$($(GO) list -C test/certmanager -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)/deploy/crds" && \
	CERT_MANAGER_IMAGE=$(CERT_MANAGER_IMAGE) CERT_MANAGER_CRDS="$$crds" $(GO) test -v -tags e2e,chaos -count=1 -timeout 20m -run TestCertManager ./test/e2e

# bin/tools/NAME@VERSION is built in the module that module.NAME says, from its
# own go.mod, which `go install` would refuse where that replaces modules.
module.golangci-lint := github.com/golangci/golangci-lint/v2
module.kind := sigs.k8s.io/kind
module.helm := helm.sh/helm/v3
package.kind := .

$(TOOLS)/%: tool = $(firstword $(subst @, ,$*))
$(TOOLS)/%: module = $(module.$(tool))@$(lastword $(subst @, ,$*))
$(TOOLS)/%:
	@mkdir -p $(TOOLS)
	$(GO) mod download $(module)
	$(GO) build -C $$($(GO) env GOMODCACHE)/$(module) -mod=readonly -trimpath -ldflags '-s -w' -o $@ $(or $(package.$(tool)),./cmd/$(tool))

.PHONY: chaos
chaos: IMAGE_TAG := e2e
chaos: image ## Create 10,000 pods while the webhook is killed, hangs and changes (CHAOS_CREATIONS)
	$(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/spile-e2e-app ./test/e2e/app
	$(GO) run ./build/image -o $(BIN)/images/spile-e2e-app.tar -t ghcr.io/spile-dev/spile-e2e-app:e2e -user 65532 $(BIN)/spile-e2e-app
	E2E_TAG=e2e $(GO) test -v -tags e2e,chaos -count=1 -timeout 20m -run TestChaos ./test/e2e
