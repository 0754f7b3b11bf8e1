#!/usr/bin/env bash
# Runs all tests that this machine can run. Called by `make test` after the lints.
set -euo pipefail
exec cargo nextest run --workspace
