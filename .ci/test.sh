#!/usr/bin/env bash
# Runs all tests that this machine can run, and says which it cannot. Called by `make test` after the lints.
set -euo pipefail

# Why the end-to-end tests cannot run here; empty when they can.
obstacle() {
  if [ "$(id -u)" != 0 ]; then
    echo "they need root (network namespaces)"
  elif [ ! -c /dev/net/tun ]; then
    echo "there is no /dev/net/tun (modprobe tun, or docker run --device=/dev/net/tun)"
  elif ! { ip netns add weir-test-$$-probe && ip netns delete weir-test-$$-probe; } 2>/dev/null; then
    echo "network namespaces cannot be made here"
  fi
}

reason=$(obstacle)
if [ -n "$reason" ]; then
  echo "SKIPPED: all end-to-end tests: $reason"
  exec cargo nextest run --workspace -E 'not (package(weir-tests) and binary(e2e))'
fi

# A test that is killed cannot delete its namespaces; their names tell that they are of this run.
export WEIR_TEST_RUN=$$
delete_namespaces() {
  ip netns list | awk -v stem="weir-test-$$-" 'index($1, stem) == 1 { print $1 }' | xargs -r -n 1 ip netns delete
}
trap delete_namespaces EXIT
cargo nextest run --workspace
