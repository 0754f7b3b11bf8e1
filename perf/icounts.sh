#!/usr/bin/env bash
# Counts instructions per packet, flow or connection under valgrind. Without an argument it writes perf/icounts.csv; with
# --check it compares with that file and fails where something has become dearer.
# Memory takes the place of the devices; its own cost is the column "floor", per packet.
set -euo pipefail
cd "$(dirname "$0")/.."

# Per cent. Two counts of one build differ by 0.1, builds of one revision in two directories by 1.1: the compiler cuts its
# work differently.
tolerance=3
# Another compiler makes other code.
foreign_tolerance=15
# More windows even out what happens once in many packets.
windows=40

counts=perf/icounts.csv
if ! command -v valgrind >/dev/null; then
    echo "SKIPPED: the comparison with $counts: valgrind is not installed (make deps)"
    [ "${1:-}" = --check ] && exit 0 || exit 1
fi
cargo build --quiet --profile counted -p weir-perf
binary=${CARGO_TARGET_DIR:-target}/counted/weir-perf
compiler=$(rustc --version)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# count SCENARIO UNIT FUNCTION [--floor]: leaves "SCENARIO,UNIT,instructions per unit in FUNCTION" in a file
count() {
    local scenario=$1 unit=$2 function=$3 units instructions
    shift 3
    local out=$work/$scenario$*
    units=$(valgrind --quiet --tool=callgrind --callgrind-out-file="$out.callgrind" \
        --zero-before="*icount::counted*" --toggle-collect="*bench::$function*" \
        "$binary" icount "$scenario" --windows "$windows" "$@")
    instructions=$(awk '/^(summary|totals):/ { print $2; exit }' "$out.callgrind")
    awk -v n="$scenario,$unit" -v i="$instructions" -v u="$units" \
        'BEGIN { if (!(i / u > 10)) exit 1; printf "%s,%.0f\n", n, i / u }' > "$out.count"
}
export -f count
export binary windows work

# The longest first, so that two processors end at the same time.
if ! xargs -P "$(nproc)" -L 1 bash -euo pipefail -c 'count "$@"' count <<'LIST'
tcp-life connection serve
udp-new flow serve
tcp6-10k packet serve
tcp-10k packet serve
tcp-1 packet serve
udp6-10k packet serve
udp-10k packet serve
udp-1 packet serve
udp-1 packet forward --floor
parse packet forward_parsed
LIST
then
    echo "perf/icounts.sh: a scenario could not be counted" >&2
    exit 1
fi
floor=$(cut -d, -f3 "$work/udp-1--floor.count")
{
    echo "# $compiler; profile counted"
    echo "scenario,unit,instructions,floor"
    for scenario in parse udp-1 udp-10k tcp-1 tcp-10k udp6-10k tcp6-10k udp-new tcp-life; do
        echo "$(cat "$work/$scenario.count"),$floor"
    done
} > "$work/counts"

if [ "${1:-}" != --check ]; then
    cp "$work/counts" "$counts"
    cat "$counts"
    exit
fi
if [ "$(head -1 "$counts")" != "$(head -1 "$work/counts")" ]; then
    echo "$counts is of another compiler ($(head -1 "$counts")), this is $compiler: only more than $foreign_tolerance % count"
    tolerance=$foreign_tolerance
fi
awk -F, -v tolerance="$tolerance" '
    /^#/ || /^scenario,/ { next }
    NR == FNR { was[$1] = $3; next }
    !($1 in was) { printf "  %-9s %7d instructions per %s, not in the file yet\n", $1, $3, $2; dearer++; next }
    {
        change = 100 * ($3 - was[$1]) / was[$1]
        verdict = change > tolerance ? "DEARER" : change < -tolerance ? "cheaper" : ""
        printf "  %-9s %7d instructions per %s, was %d (%+.1f %%) %s\n", $1, $3, $2, was[$1], change, verdict
        dearer += verdict == "DEARER"; cheaper += verdict == "cheaper"
    }
    END {
        if (cheaper && !dearer) print "cheaper than perf/icounts.csv says: keep it with `make icounts` and commit the file"
        if (dearer) print "dearer than perf/icounts.csv allows (" tolerance " %): see what it is, or accept it with `make icounts`"
        exit dearer > 0
    }' "$counts" "$work/counts"
