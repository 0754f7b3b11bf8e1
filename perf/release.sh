#!/usr/bin/env bash
# release.sh [v3]: builds weir and weir-perf as they are to be shipped: DPDK inside, and what is often run laid out by a
# profile that weir-perf records first, of the scenarios below. v3: for processors with AVX2 and BMI2.
# The result is in target/pgo/release, or target/pgo-v3/release.
set -euo pipefail
cd "$(dirname "$0")/.."

flags=${RUSTFLAGS:-}
name=pgo
case ${1:-} in
    "") ;;
    v3) flags="$flags -Ctarget-cpu=x86-64-v3"; name=pgo-v3 ;;
    *) echo "release.sh: $1: only v3 can be asked for" >&2; exit 1 ;;
esac
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
if ! [ -x "$profdata" ]; then
    echo "release.sh: there is no $profdata; rustup component add llvm-tools, or make release, which does that" >&2
    exit 1
fi
# What weir does: new flows and connections, and the packets of those that are there, over IPv4 and IPv6.
scenarios=(udp-10k tcp-10k udp-new tcp-life udp6-10k tcp6-10k udp6-new tcp6-life)

record=$target/$name-record
profiles=$record/profiles
rm -rf "$profiles"
mkdir -p "$profiles"

# build DIRECTORY FLAGS ARGUMENTS: both packages are named each time, so that what they share is built with the same features
# and a profile of one build fits the other.
build() {
    local directory=$1 more=$2
    shift 2
    CARGO_TARGET_DIR=$directory RUSTFLAGS="$flags $more" \
        cargo build --release --features weir/static,weir-perf/static -p weir -p weir-perf "$@"
}

echo "release.sh: building what records a profile"
# Build scripts would record theirs, too.
LLVM_PROFILE_FILE=$record/build-%m.profraw build "$record" "-Cprofile-generate=$profiles" --bin weir-perf
chosen=()
for scenario in "${scenarios[@]}"; do chosen+=(--scenario "$scenario"); done
echo "release.sh: recording"
LLVM_PROFILE_FILE=$profiles/%p-%m.profraw "$record/release/weir-perf" --quick "${chosen[@]}" > "$record/run.md"
"$profdata" merge -o "$record/weir.profdata" "$profiles"
echo "release.sh: building with it"
build "$target/$name" "-Cprofile-use=$record/weir.profdata" --bin weir --bin weir-perf --bin weir-load
echo "release.sh: $target/$name/release/weir"
