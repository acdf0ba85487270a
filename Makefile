# Everything a person does here. Each target sets up what it needs.
#   make run          a local cluster: one master, four storage nodes (Ctrl-C stops it; the data stays in diptych-data/)
#   make test         all checks and tests, as CI runs them
#   make console      the page for people, which `cargo build` then embeds (needs node and npm; left out without them)
#   make console-test drives it with Chromium against a real cluster (SHOTS=folder keeps pictures)
#   make sim          the simulator over many seeds (SEEDS=0..4000); fails also if a fault never met a state
#   make sim-night    the same with fresh seeds for ten hours (HOURS=10)
#   make mutants      deliberate faults of the protocol, each of which the simulator must catch (NAMES="AckBeforeSync …")
#   make chaos        real processes, hurt for minutes (CHAOS_MINUTES=3 SEED=…), and figures (KILLS=5 PAUSES=3 HANGS=3)
#   make model        every interleaving of small groups, and that deliberate faults are found so (STEPS=40000000)
#   make fuzz         the decoders and the engine, fed with what nobody would write (SECONDS=60 TARGETS="table …")
#   make bench        the load generator against a fresh local cluster
#   make bench-peers  the same work against etcd and redis, in the same run
#   make bench-bigtable  Google's client against Diptych and the Bigtable emulator, in turn
#   make bench-engines  the storage engine against rocksdb, fjall, redb and sled (ARGS=--quick for three minutes)
#   make lint         formatting, clippy, docs, licences

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

SEEDS ?= 0..4000
HOURS ?= 10
ARGS ?=
NAMES ?=
STEPS ?= 40000000
CHAOS_MINUTES ?= 3
SEED ?= $(shell date +%s)
KILLS ?= 5
PAUSES ?= 3
HANGS ?= 3
SECONDS ?= 60
TARGETS ?= table manifest log key engine

.PHONY: run build console console-test test lint fmt sim sim-night mutants model chaos fuzz bench bench-peers bench-bigtable bench-engines tools doc

run: build
	exec target/release/diptych up $(ARGS)

build: console
	cargo build --release --locked --package diptych

# Before anything is compiled: it becomes a part of the binary.
console:
	console/build

console-test: console
	cargo build --locked --package diptych
	console/run-tests $(ARGS)

test: tools console lint
	cargo nextest run --locked --workspace --profile $(if $(CI),ci,default)
	cargo nextest run --locked --package store --lib --features shuttle schedules
	tests/bigtable/run
	console/run-tests

lint: tools
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --package sim --all-targets --features mutants -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	cargo deny --locked check bans licenses sources

fmt:
	cargo fmt --all

sim:
	cargo build --release --locked --package sim
	target/release/sim group $(SEEDS) $(ARGS)
	target/release/sim coverage $(SEEDS) $(ARGS)

sim-night:
	cargo build --release --locked --package sim
	target/release/sim night $(HOURS)

mutants:
	cargo build --release --locked --package sim --features mutants --bin mutants
	target/release/mutants $(NAMES)

model:
	STEPS=$(STEPS) cargo test --release --locked --package sim --lib --features mutants -- exhaustive --include-ignored --nocapture --test-threads 1

chaos:
	CHAOS_SECONDS=$$((60 * $(CHAOS_MINUTES))) SEED=$(SEED) KILLS=$(KILLS) PAUSES=$(PAUSES) HANGS=$(HANGS) \
		cargo test --locked --workspace --test chaos -- --include-ignored --nocapture --test-threads 1 $(ARGS)

fuzz:
	fuzz/run $(SECONDS) $(TARGETS)

bench: build
	bench/run

bench-peers: build
	bench/peers

bench-bigtable: build
	bench/bigtable $(ARGS)

bench-engines:
	bench/engines/run $(ARGS)

# What the tests need beside the toolchain: the test runner and the licence checker, from the crates' registry.
tools:
	@command -v cargo-nextest >/dev/null || cargo install cargo-nextest --locked --root target/tools
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --root target/tools
