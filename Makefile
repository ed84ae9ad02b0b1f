# KubeVFIO. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Caches live outside the checkout, keyed by content; nothing here needs cleaning between runs.
CACHE  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kubevfio
GOLANGCI := $(CACHE)/tools/golangci-lint
CONTROLLER_GEN := $(CACHE)/tools/controller-gen
# Own packages that are unit-tested with the race detector. The differential
# tests against kubelet's own managers run without it (see `make differential`).
UNIT_PKGS = ./api/... ./topology/... ./host/... ./plugins/... ./deviceplugin/... ./launcher/... ./controller/... ./cmd/... ./test/lab/... ./test/scenario/... ./test/testbed/...
DIFF_PKGS = ./test/integration/... ./test/sim/... ./test/bench/...

# grpcnotrace leaves grpc's pages for debugging out: they are HTML templates, which call methods by name, so that the linker has
# to keep every method of every type, a third of a program.
export GOFLAGS += -buildvcs=false -tags=grpcnotrace

##@ The two commands

.PHONY: demo
demo: prerequisites ## Set up the embedded lab and run the main job: two VMs with real VFIO devices (KEEP=1 leaves the cluster up)
	@CGO_ENABLED=0 go run ./test/demo $(if $(KEEP),--keep) $(DEMO_FLAGS)

.PHONY: test
test: prerequisites ## Run everything that must pass: lint, unit tests with -race, differential tests, end-to-end tests in the lab
	@./test/run.sh

##@ Parts of `make test`

.PHONY: lint
lint: $(GOLANGCI) ## Run golangci-lint (pinned in tools/go.mod), go vet's checks and the generated-files check
	@CGO_ENABLED=0 $(GOLANGCI) run ./...
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }

.PHONY: unit
unit: prerequisites ## Unit tests of our own packages with the race detector; Go skips what has not changed since it passed (COUNT=1 does not)
	@CGO_ENABLED=1 go test -race $(if $(COUNT),-count=$(COUNT)) $(UNIT_PKGS)

.PHONY: differential
differential: prerequisites ## Tests against the real kubelet managers and the real API server, in process
	@CGO_ENABLED=0 go test -count=1 -timeout=9m $(DIFF_PKGS)

.PHONY: e2e
e2e: prerequisites ## End-to-end tests: one lab boot, real kubelet, libvirt and VFIO
	@CGO_ENABLED=0 go test -count=1 -v -timeout=25m ./test/e2e

##@ Longer checks

.PHONY: e2e-machines
e2e-machines: prerequisites ## VirtualMachine objects in the lab with two nodes: life, drain, controller killed, deletions
	@CGO_ENABLED=0 go test -count=1 -v -timeout=40m ./test/e2e/machines

.PHONY: e2e-agent
e2e-agent: prerequisites ## The node agent in the lab: killed in mid-allocation, node rebooted, device unplugged, virtual functions changed
	@CGO_ENABLED=0 go test -count=1 -v -timeout=40m ./test/e2e/agent

.PHONY: e2e-scheduler
e2e-scheduler: prerequisites ## Scheduler killed again and again in the lab while 20 pods with devices are placed
	@CGO_ENABLED=0 go test -count=1 -v -timeout=20m ./test/e2e/scheduler

.PHONY: bench
bench: ## Go benchmarks of the parts, readable by benchstat
	@CGO_ENABLED=0 go test -run='^$$' -bench=. -benchmem -count=$(or $(COUNT),1) ./topology/... ./host/... ./plugins/... ./deviceplugin/... ./launcher/...

.PHONY: bench-scheduler
bench-scheduler: ## Scheduler throughput and latency ratios: out/bench/scheduler.json
	@CGO_ENABLED=0 go run ./test/bench/scheduler -o out/bench/scheduler.json $(BENCH_FLAGS)

.PHONY: policydiff
policydiff: ## Placements under kubelet's topology policies against kubelet's own managers, CASES of them (default 100,000; some minutes, faster with TMPDIR in memory)
	@CGO_ENABLED=0 go test -count=1 -timeout=0 -v ./test/integration/policydiff -args -pods=$(or $(CASES),100000)

.PHONY: bench-controller
bench-controller: ## 500 machines at once against a real API server: out/bench/controller.json
	@CGO_ENABLED=0 go run ./test/bench/controller -o out/bench/controller.json

.PHONY: bench-agent
bench-agent: ## The agent at 4,096 virtual functions (speed ratios, latencies, memory): out/bench/agent.json
	@CGO_ENABLED=0 go run ./test/bench/agent -o out/bench/agent.json

.PHONY: fuzz
fuzz: ## Every fuzz test for FUZZTIME (default 30s)
	@./test/fuzz.sh $(or $(FUZZTIME),30s)

.PHONY: soak
soak: ## The randomised kubelet differential test with 100,000 steps
	@CGO_ENABLED=0 go test -count=1 -timeout=0 -v ./test/integration/kubeletdiff -args -steps=100000

.PHONY: page-test
page-test: prerequisites ## The controller's page in headless Chromium (installs Debian's chromium when it is missing); screenshots in out/page
	@CGO_ENABLED=0 go test -count=1 -v -timeout=10m ./test/page

.PHONY: e2e-launcher
e2e-launcher: prerequisites ## End-to-end tests of the launcher: topology in the guest, volumes, huge pages, TPM, attach, failures
	@CGO_ENABLED=0 go test -count=1 -v -timeout=40m ./test/e2e/launcher

.PHONY: bench-launcher
bench-launcher: prerequisites ## Start time against plain QEMU, memory and image size of the launcher: out/bench/launcher.json (PAIRS, default 7)
	@CGO_ENABLED=0 go run ./test/bench/launcher -pairs $(or $(PAIRS),7) -o out/bench/launcher.json

##@ Building

.PHONY: build
build: prerequisites ## Build all binaries into bin/
	@mkdir -p bin
	@CGO_ENABLED=0 go build -ldflags='-s -w' -o bin/ ./cmd/kubevfio-agent ./cmd/kubevfio-write-attr ./cmd/kubevfio-scheduler ./cmd/kubevfio-controller ./cmd/kubectl-vfio
	@CGO_ENABLED=1 go build -tags=libvirt_dlopen,grpcnotrace -ldflags='-s -w' -o bin/ ./cmd/kubevfio-launcher

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Regenerate deepcopy functions and CRDs from api/
	@$(CONTROLLER_GEN) object paths=./api/v1alpha1/...
	@$(CONTROLLER_GEN) crd paths=./api/v1alpha1/... output:crd:dir=manifests/crd

.PHONY: verify-generated
verify-generated: $(CONTROLLER_GEN) ## Fail when generated files do not match api/
	@tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; \
	$(CONTROLLER_GEN) crd paths=./api/v1alpha1/... output:crd:dir=$$tmp/crd; \
	$(CONTROLLER_GEN) object paths=./api/v1alpha1/... output:object:dir=$$tmp/obj; \
	cmp $$tmp/obj/zz_generated.deepcopy.go api/v1alpha1/zz_generated.deepcopy.go || { echo 'run `make generate`'; exit 1; }; \
	for f in $$tmp/crd/*.yaml; do cmp $$f manifests/crd/$$(basename $$f) || { echo 'run `make generate`'; exit 1; }; done

##@ The lab by hand

.PHONY: lab-up
lab-up: prerequisites ## Boot the lab cluster and leave it running
	@CGO_ENABLED=0 go run ./test/lab up

.PHONY: lab-down
lab-down: ## Stop this checkout's lab; nothing is left behind
	@CGO_ENABLED=0 go run ./test/lab down

##@ Other

.PHONY: prerequisites
prerequisites:
	@./test/prerequisites.sh

$(GOLANGCI): tools/go.mod tools/go.sum
	@echo "==> building golangci-lint (pinned in tools/go.mod)"
	@mkdir -p $(@D) && CGO_ENABLED=0 go build -C tools -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint && touch $@

$(CONTROLLER_GEN): tools/go.mod tools/go.sum
	@echo "==> building controller-gen (pinned in tools/go.mod)"
	@mkdir -p $(@D) && CGO_ENABLED=0 go build -C tools -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen && touch $@

.PHONY: clean
clean: ## Remove bin/ and out/ (caches stay; remove $(CACHE) by hand)
	@rm -rf bin out

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*##/ {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
