#!/usr/bin/env bash
# Counts instructions per packet, flow or connection under valgrind and writes perf/icounts.csv.
# Memory takes the place of the devices; its own cost is the column "floor", per packet.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release -p weir-perf
binary=$target/release/weir-perf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# count SCENARIO FUNCTION WINDOWS [--floor]: instructions inside of FUNCTION, then units
count() {
    local scenario=$1 function=$2 windows=$3
    shift 3
    local units instructions
    units=$(valgrind --quiet --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect="*bench::$function*" \
        "$binary" icount "$scenario" --windows "$windows" "$@")
    instructions=$(awk '/^(summary|totals):/ { print $2; exit }' "$work/out")
    echo "$instructions $units"
}

# per_unit SCENARIO FUNCTION [--floor]: the preparation is taken off by a run that only prepares
per_unit() {
    local scenario=$1 function=$2 before after
    shift 2
    before=$(count "$scenario" "$function" 0 "$@")
    after=$(count "$scenario" "$function" 40 "$@")
    awk -v b="${before% *}" -v a="${after% *}" -v u="${after#* }" 'BEGIN { printf "%.0f", (a - b) / u }'
}

{
    echo "scenario,unit,instructions,floor"
    floor=$(per_unit udp-1 forward --floor)
    echo "parse,packet,$(per_unit parse forward_parsed),$floor"
    for scenario in udp-1 udp-10k tcp-1 tcp-10k; do
        echo "$scenario,packet,$(per_unit $scenario serve),$floor"
    done
    echo "udp-new,flow,$(per_unit udp-new serve),$floor"
    echo "tcp-life,connection,$(per_unit tcp-life serve),$floor"
} > "$work/icounts.csv"
cp "$work/icounts.csv" perf/icounts.csv
cat perf/icounts.csv
