# What one does with weir. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
# Where cargo puts what it builds; cargo itself reads the same variable.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Tests need the binary. It is built together with them, so that nothing is built twice.
export WEIR_BIN ?= $(abspath $(TARGET_DIR))/debug/weir

AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help deps build build-v3 static release release-v3 test icounts soak growth fuzz demo bench bench-v3 perf perf-profile perf-compare compare clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

deps: ## install what Debian packages and cargo provide (root or sudo); says what and why
	@.ci/deps.sh

build: ## the release binary, target/release/weir
	$(CARGO) build --release

# A processor of the last ten years. In a directory of its own, so that the two builds do not replace each other.
V3 = CARGO_TARGET_DIR="$(abspath $(TARGET_DIR))/v3" RUSTFLAGS="$(RUSTFLAGS) -Ctarget-cpu=x86-64-v3"

build-v3: ## the release binary for processors with AVX2 and BMI2, target/v3/release/weir
	$(V3) $(CARGO) build --release

STATIC = $(abspath $(TARGET_DIR))/static

static: ## the release binary with DPDK inside, without a profile, built and asked whether it starts; target/static/release/weir
	CARGO_TARGET_DIR="$(STATIC)" $(CARGO) build --release --features static
	"$(STATIC)/release/weir" --version
	"$(STATIC)/release/weir" check config/examples/full.toml >/dev/null

release: ## what is shipped: DPDK inside, the code laid out by a recorded profile; target/pgo/release/weir, ten minutes
	@.ci/deps.sh release
	@perf/release.sh

release-v3: ## the same for processors with AVX2 and BMI2; target/pgo-v3/release/weir
	@.ci/deps.sh release
	@perf/release.sh v3

test: ## format, lints, unit, integration and end-to-end tests (the last as root), instruction counts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace --doc --quiet
	@.ci/test.sh
	@perf/icounts.sh --check

icounts: ## count instructions anew and keep them in perf/icounts.csv, with which make test compares
	@perf/icounts.sh

soak: ## 240,000 connections over wires that lose, reorder, repeat and spoil packets (WEIR_SOAK_UPDATE=1: new table)
	$(CARGO) test --release -p weir-tests --test soak the_whole -- --ignored --nocapture

growth: ## ten million short flows: nothing is left of them on the heap and in the memory of the process
	$(CARGO) test --profile counted -p weir-perf --test growth -- --ignored --nocapture --test-threads=1

# Seconds for each target.
FUZZ_SECONDS ?= 60

fuzz: ## each fuzz target for a minute (FUZZ_SECONDS); fuzz/README.md says what they check
	@.ci/fuzz.sh $(FUZZ_SECONDS)

demo: ## the main job on real traffic: TLS, RADIUS and DNS through weir (root or sudo)
	@.ci/deps.sh
	$(CARGO) build --release
	@$(AS_ROOT) env WEIR_BIN="$(abspath $(TARGET_DIR))/release/weir" demo/run.sh

bench: ## packets per second, cycles per packet and latency beside the bare device loop
	$(CARGO) run --release -p weir-perf

bench-v3: ## the same of a build for processors with AVX2 and BMI2
	$(V3) $(CARGO) run --release -p weir-perf

perf: ## measure everything and write a dated report with plots to perf/runs/ (QUICK=1: minutes instead of 20; of a commit, or DIRTY=1)
	@.ci/deps.sh perf
	@perf/run.sh --check
	@perf/release.sh
	@perf/run.sh

# Where to.
PROFILE ?= perf/runs/$(shell date +%F-%H%M)-profile.md

perf-profile: ## where the time goes with many flows and new ones, functions and instructions, to perf/runs/; a part of make perf
	@.ci/deps.sh perf
	$(CARGO) build --release -p weir-perf
	@perf/profile.sh "$(PROFILE)"

perf-compare: ## which differences to the revision BASE are real: make perf-compare BASE=HEAD~1
	@perf/compare.sh "$(BASE)"

# `make compare COMPARE=--quick` takes a minute and writes nothing; perf/compare/run.sh --help
COMPARE ?=

compare: ## weir beside HAProxy, nginx and nftables, six minutes; writes the table of README.md (root or sudo)
	@.ci/deps.sh compare
	$(CARGO) build --release -p weir -p weir-perf --bin weir --bin weir-load
	@$(AS_ROOT) env WEIR_BIN="$(abspath $(TARGET_DIR))/release/weir" LOAD_BIN="$(abspath $(TARGET_DIR))/release/weir-load" \
	  perf/compare/run.sh $(COMPARE)

clean: ## remove what was built
	$(CARGO) clean
