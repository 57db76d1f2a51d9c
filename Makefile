# revenant. Run `make` to see what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Everything made or fetched that outlives a checkout lies here, each thing keyed by what made it.
CACHE := $(or $(REVENANT_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/revenant)
export REVENANT_CACHE := $(CACHE)

# What `make stage` assembles: the directory that images carry as /opt/revenant.
STAGE := build/opt/revenant

# Of Cargo.toml: what stands in build/ and in images is compiled so.
PROFILE ?= release
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help
help: ## Show this list
	@echo 'revenant: a container entrypoint that lets a long-running workload outlive its container'
	@echo
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'
	@echo
	@echo 'On a fresh Debian 12 or 13: make deps, then make test. Caches: $(CACHE)'

.PHONY: deps
deps: ## Install the packages that the rest needs (as root)
	@scripts/deps.sh

.PHONY: build
build: ## Compile revenant: one static binary, optimized (PROFILE=ci compiles faster)
	@cargo build --profile $(PROFILE) --locked

.PHONY: bundle
bundle: ## Fetch CRIU as a self-contained directory (cached)
	@scripts/criu-bundle.sh $(CACHE)

.PHONY: stage
stage: build bundle ## Assemble what images carry as /opt/revenant, in build/
	@rm -rf $(STAGE)
	@mkdir -p $(STAGE)/bin
	@cp target/$(TRIPLE)/$(PROFILE)/revenant $(STAGE)/bin/revenant
	@cp -r $$(readlink -f $(CACHE)/criu) $(STAGE)/criu
	@rm $(STAGE)/criu/.key
	@echo $(STAGE)

.PHONY: rootfs
rootfs: ## Make the Debian root file systems of test containers (cached; as root)
	@for variant in base megahit debian-11 debian-13 debian-testing musl scratch; do scripts/rootfs.sh $(CACHE) $$variant || exit; done

.PHONY: s3-server
s3-server: ## Install SeaweedFS, the S3 server of the tests (cached)
	@scripts/seaweedfs.sh $(CACHE)

.PHONY: store-servers
store-servers: ## Install the S3, Google and Azure servers of the store's tests (cached)
	@scripts/store-servers.sh $(CACHE)

.PHONY: test-needs
test-needs: bundle rootfs s3-server store-servers ## Make all that a single `cargo test --test NAME` needs

.PHONY: test
test: test-needs ## Run every test; ends with one line of totals (as root)
	@REVENANT_CRIU=$(CACHE)/criu scripts/test.sh --profile ci --locked

.PHONY: test-unit
test-unit: ## Run the tests that need neither root nor containers
	@scripts/test.sh --profile ci --locked --lib --bins

FUZZ_TARGETS = $(shell sed -n 's/^name = "\([a-z_]*\)"$$/\1/p' fuzz/Cargo.toml)

.PHONY: fuzz
fuzz: ## Feed the parsers mutated input (FUZZ_SECONDS=60 for each; needs cargo-fuzz and a nightly compiler)
	@for target in $(FUZZ_TARGETS); do \
		cargo +nightly fuzz run --target $(TRIPLE) $$target -- -max_total_time=$(or $(FUZZ_SECONDS),60) -rss_limit_mb=2048 || exit; \
	done

.PHONY: lint
lint: ## Check formatting, lints, shell scripts, Dockerfiles, licences of dependencies and alert rules
	@cargo fmt --check
	@cargo clippy --profile ci --locked --all-targets -- -D warnings
	@scripts/lint-shell.sh
	@scripts/deny.sh $(CACHE)
	@scripts/lint-alerts.sh $(CACHE)
	@scripts/lint-docker.sh $(CACHE)

.PHONY: bench
bench: stage ## Compare with CRIU and podman (SIZES="1 4 8" GiB, BENCH_REPEAT=3, BENCH_QUICK=1; as root)
	@mkdir -p build/bench
	@rustc --edition 2024 -O -C target-feature=+crt-static -o build/bench/workload benches/compare/workload.rs
	@WEED=$$(scripts/seaweedfs.sh $(CACHE)) python3 -B benches/compare/bench.py --workload build/bench/workload --stage build/opt/revenant --out build/bench \
		--gib "$(or $(SIZES),$(BENCH_GIB),1 4 8)" --repeat $(or $(BENCH_REPEAT),3) $(if $(BENCH_QUICK),--quick) $(if $(BENCH_ONLY),--only "$(BENCH_ONLY)")

.PHONY: cluster
cluster: ## Build (once) and start a Kubernetes of two nodes from Debian's packages (Debian 12, as root)
	@scripts/kubernetes/build.sh $(CACHE) >/dev/null
	@scripts/kubernetes/up.sh

.PHONY: cluster-down
cluster-down: ## Stop that Kubernetes
	@scripts/kubernetes/down.sh

.PHONY: test-k8s
test-k8s: stage cluster ## Kill real pods in every way and measure what is lost (CAUSES=delete_job,drain for some; as root)
	@scripts/kubernetes/images.sh $(CACHE) >/dev/null
	@for image in build/kubernetes/*.tar; do scripts/kubernetes/load.sh $$image || exit; done
	@python3 -B scripts/kubernetes/matrix/survival.py --revenant $(STAGE)/bin/revenant --state $(CACHE)/kubernetes-state --cache $(CACHE) \
		--results build/kubernetes/survival.json --pages README.md docs/kubernetes-survival.md $(if $(CAUSES),--only $(CAUSES))

.PHONY: demo
demo: stage ## Assemble a metagenome in containers that are stopped five times (as root; STORE=s3 for S3)
	@scripts/rootfs.sh $(CACHE) megahit >/dev/null
	@WEED=$$(scripts/seaweedfs.sh $(CACHE)) python3 -B scripts/demo/demo.py --store $(or $(STORE),local) \
		--rootfs $(CACHE)/rootfs/megahit --bundle build/opt/revenant --cache $(CACHE)/demo $(DEMO_OPTIONS)

.PHONY: fidelity
fidelity: stage ## Save and restore each kind of resource for real; writes docs/fidelity.md (as root)
	@scripts/rootfs.sh $(CACHE) base >/dev/null
	@python3 -B scripts/fidelity/fidelity.py --rootfs $(CACHE)/rootfs/base --revenant $(STAGE)/bin/revenant \
		--criu $(CACHE)/criu --write docs/fidelity.md $(FIDELITY_OPTIONS)

.PHONY: programs
programs: stage ## Preempt and kill real programs, compare their results; writes docs/fidelity.md (as root)
	@scripts/programs/rootfs.sh $(CACHE) >/dev/null
	@mkdir -p $(CACHE)/programs
	@python3 -B scripts/programs/programs.py --rootfs $(CACHE)/rootfs/programs --revenant $(STAGE)/bin/revenant \
		--criu $(CACHE)/criu --cache $(CACHE)/programs --write docs/fidelity.md $(PROGRAMS_OPTIONS)

.PHONY: survival
survival: test-needs ## Die of every cause and measure what is lost; writes docs/survival.md (as root)
	@REVENANT_CRIU=$(CACHE)/criu cargo test $(or $(SURVIVAL_PROFILE),--profile ci) --locked --test survival -- --ignored --nocapture

.PHONY: image
image: stage ## Build the images with buildah, pulling nothing, and try them under runc (as root)
	@scripts/image.sh $(CACHE)

.PHONY: tools
tools: image ## Build the images of the metagenomics tools and preempt each (TOOLS="megahit spades"; as root)
	@scripts/tools.sh $(CACHE) $(TOOLS)

.PHONY: clean
clean: ## Remove what was built here (not the caches)
	@rm -rf build target
