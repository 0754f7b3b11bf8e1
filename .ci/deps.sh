#!/usr/bin/env bash
# Installs what weir, its tests and its demo need on Debian 12, and nothing that is there already. With the argument
# `compare`, also what perf/compare compares with; with `perf`, testpmd and what a release is built with; with `release`, the
# latter.
set -euo pipefail

# Package and reason. Nothing of it is started: the tests and the demo start what they need in their own namespaces.
wanted=(
  "build-essential   the C compiler, for LuaJIT and the inline functions of DPDK"
  "pkg-config        finds DPDK"
  "libdpdk-dev       DPDK 22.11: headers, libraries, drivers"
  "libclang-dev      reads DPDK's headers (bindgen)"
  "git               the revision in the version of weir"
  "iproute2          network namespaces, for the end-to-end tests and the demo"
  "ethtool           turns the offloads of veth off, for drivers of DPDK on it"
  "procps            process tools of the demo"
  "valgrind          counts instructions"
  "python3           small servers and clients of the end-to-end tests"
  "curl              HTTP and TLS client"
  "openssl           certificates of the tests and the demo"
  "ca-certificates   lets cargo download"
  "jq                reads the log of the demo"
  "nginx-light       TLS servers of the demo"
  "freeradius        RADIUS servers of the demo"
  "freeradius-utils  RADIUS client of the demo"
  "dnsmasq-base      DNS servers of the demo"
  "bind9-dnsutils    DNS client of the demo"
)
if [ "${1:-}" = compare ]; then
  wanted+=(
    "haproxy              compared with weir"
    "libnginx-mod-stream  compared with weir"
    "nftables             compared with weir"
  )
elif [ "${1:-}" = perf ]; then
  wanted+=(
    "dpdk-dev    testpmd, which weir-perf load compares with"
    "linux-perf  says where the time goes (perf/profile.sh)"
  )
fi

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts servers when they are installed. A policy of our own stops that for the time of the installation.
policy=/usr/sbin/policy-rc.d
install_packages() {
  local own_policy=no
  if [ ! -e "$policy" ]; then
    own_policy=yes
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  if [ "$own_policy" = yes ]; then
    as_root rm -f "$policy"
    trap - EXIT
  fi
  # Not at the next boot either: these are only wanted as programs.
  local service
  for service in nginx freeradius haproxy; do
    if [[ " $* " == *" $service"* ]] && [ -d /run/systemd/system ]; then
      as_root systemctl disable --quiet "$service"
    fi
  done
}

if ! command -v apt-get >/dev/null; then
  echo "make deps: this is not Debian; install the equivalents of: ${wanted[*]%% *}" >&2
  exit 1
fi

missing=()
for line in "${wanted[@]}"; do
  package=${line%% *}
  if ! installed "$package"; then
    missing+=("$package")
    echo "make deps: installing $line"
  fi
done
if [ "${#missing[@]}" -gt 0 ]; then
  install_packages "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
  echo "make deps: there is no Rust toolchain; see https://rustup.rs (weir needs Rust 1.95 or later)" >&2
  exit 1
fi
if ! cargo nextest --version >/dev/null 2>&1; then
  echo "make deps: installing cargo-nextest, which runs the tests (cargo install --locked)"
  cargo install --locked cargo-nextest
fi
case ${1:-} in perf | release)
  host=$(rustc -vV | sed -n 's/^host: //p')
  if ! [ -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" ]; then
    echo "make deps: installing llvm-tools, which makes a recorded profile what the compiler reads (rustup component)"
    rustup component add llvm-tools
  fi
  ;;
esac
echo "make deps: everything is there"
