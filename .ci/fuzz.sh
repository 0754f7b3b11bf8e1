#!/usr/bin/env bash
# Runs each fuzz target for $1 seconds: under libFuzzer where cargo-fuzz is installed, else as random tests on stable.
set -euo pipefail

seconds=$1
if ! command -v cargo-fuzz >/dev/null; then
  echo "cargo-fuzz is not installed (cargo install cargo-fuzz): random inputs on stable Rust instead"
  FUZZ_SECONDS=$seconds exec cargo test -p fuzz-targets --test bounded -- --nocapture
fi

# libFuzzer needs flags that a stable compiler takes only with this. No sanitizer: the crates have no unsafe code.
export RUSTC_BOOTSTRAP=1
for target in parse reassembly binding options proxy_protocol; do
  # What libFuzzer finds on the way goes to a folder that is not committed.
  found=fuzz/target/found/$target
  mkdir -p "$found"
  cargo fuzz run -s none "$target" "$found" "fuzz/corpus/$target" -- "-max_total_time=$seconds" -max_len=4096 -print_final_stats=1
done
