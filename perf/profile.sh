#!/usr/bin/env bash
# profile.sh REPORT [PROGRAM]: where weir's time goes with a million and ten million flows and for new ones: the functions and
# the instructions that most samples of `perf record -e cpu-clock` fall on. PROGRAM is a weir-perf, target/release/weir-perf
# without one. Samples are taken in the rounds only (weir-perf --sampler), and those of the end hosts are left out. QUICK=1: fewer.
set -euo pipefail
report=$(realpath -m "${1:?the report}")
cd "$(dirname "$0")/.."
program=${2:-${CARGO_TARGET_DIR:-target}/release/weir-perf}

functions=30
instructions=25
# Nanoseconds of work between two samples.
period=50021
effort=()
if [ -n "${QUICK:-}" ]; then effort=(--quick); fi
# KiB that udp-10m needs.
large=6000000

skip() { echo "SKIPPED: the profile: $1"; exit 0; }
command -v perf > /dev/null || skip "there is no perf (Debian's package linux-perf)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
perf record --quiet -e cpu-clock -o "$work/probe" true 2> "$work/said" || skip "perf record does not work here: $(tail -1 "$work/said")"

# record SCENARIO: leaves samples, and what weir-perf said
record() {
    local place=$work/$1
    mkdir "$place"
    mkfifo "$place/control" "$place/answers"
    perf record --quiet -e cpu-clock -c "$period" -D -1 --control "fifo:$place/control,$place/answers" -o "$place/samples" \
        "$program" "${effort[@]}" --scenario "$1" --sampler "$place" > "$place/said" 2> "$place/errors" ||
        { cat "$place/errors" >&2; exit 1; }
}

# hot SCENARIO: "SAMPLES|PROGRAM OR LIBRARY|FUNCTION", most first. What weir-perf does is left out, with the frames that its end hosts build
# and parse, the buffers that they take and give back, and the kernel.
hot() {
    perf report -i "$work/$1/samples" --stdio --no-children --sort dso,symbol -F sample,dso,symbol -t '|' 2> /dev/null | awk -F'|' '
        /^#/ || NF < 3 { next }
        { for (i = 2; i <= 3; i++) gsub(/^ +| +$/, "", $i) }
        $3 ~ /^\[k\]/ { next }
        { sub(/^\[.\] /, "", $3) }
        $3 ~ /weir_perf::|^dataplane::(frame|parse)::|^(weir_mbuf_alloc|weir_mbuf_free|rte_pktmbuf_free)$/ { next }
        { print $1 + 0 "|" $2 "|" $3 }' | sort -t'|' -k1,1nr
}

# sources SCENARIO TOTAL: the hottest instructions of all functions, what stands before each, and where that comes from
sources() {
    local place=$work/$1 total=$2 samples object function
    while IFS='|' read -r samples object function; do
        [ "$object" = "$(basename "$program")" ] || continue
        perf annotate -i "$place/samples" --stdio -q --stdio-color=never -s "$function" 2> /dev/null |
            awk -v share="$samples" -v total="$total" '
                match($0, /^ +[0-9]+\.[0-9]+ +: +[0-9a-f]+:/) {
                    percent = $1
                    text = substr($0, RSTART + RLENGTH); gsub(/^[ \t]+|[ \t]+$/, "", text); gsub(/[ \t]+/, " ", text)
                    match($0, /[0-9a-f]+:/); address = substr($0, RSTART, RLENGTH - 1)
                    if (percent > 0) printf "%.2f|%s|%s|%s\n", percent * share / total, address, before, text
                    before = text
                }'
    done < <(hot "$1" | head -20) | sort -t'|' -k1,1nr | awk -v most="$instructions" 'NR <= most' > "$place/instructions"
    local address share before text where
    while IFS='|' read -r share address before text; do
        # The innermost of the functions inlined there that is none of a library.
        where=$(addr2line -e "$program" -i -f -C "0x$address" | awk -v root="$PWD/" '
            NR % 2 { name = $0; next }
            { sub(/ \(discriminator.*/, ""); place = sub(root, "") ? $0 : ""; if (NR == 2) first = name "  " $0 }
            place != "" { print name "  " place; found = 1; exit }
            END { if (!found) print first }' | sed 's#<.*>##; s#^[^ ]*::##; s#/rustc/[0-9a-f]*/##')
        printf '%5.2f %%  %-44.44s %-44.44s %s\n' "$share" "$before" "$text" "$where"
    done < "$place/instructions"
}

# describe SCENARIO
describe() {
    local total
    record "$1"
    total=$(hot "$1" | awk -F'|' '{ sum += $1 } END { print sum + 0 }')
    [ "$total" -ge 100 ] || { echo "profile.sh: $1: $total samples are too few" >&2; exit 1; }
    printf '\n## %s\n\n' "$1"
    sed -n '/^|/p' "$work/$1/said"
    printf '\nOf %s samples:\n\n```\n' "$total"
    hot "$1" | awk -F'|' -v total="$total" -v most="$functions" -v own="$(basename "$program")" \
        'NR <= most { printf "%5.1f %%  %s%s\n", 100 * $1 / total, $3, $2 == own ? "" : "  (" $2 ")" }'
    printf '```\n\nInstructions, and before each the one that stands there:\n\n```\n'
    sources "$1" "$total"
    printf '```\n'
}

{
    echo "# $(basename "$report" .md)"
    echo
    echo "\`perf/profile.sh\` of weir-perf $("$program" --version | cut -d' ' -f2), a sample each $((period / 1000)) µs (\`perf record -e cpu-clock\`), those of weir:"
    echo "nothing of the end hosts on the same core, and of the kernel; functions of the device (eth_ring) are theirs and the floor's as well. $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)."
    echo "A sample falls on the instruction that waits to retire: behind a fetch (\`prefetch\`) that waits for its address to be translated or for"
    echo "a place among the fetches under way, behind a load that waits for memory. Cycles in the rows include what sampling costs."
    for scenario in udp-1m udp-10m udp-new; do
        free=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
        if [ "$scenario" = udp-10m ] && [ "$free" -lt "$large" ]; then
            printf '\n## udp-10m\n\nNot measured: %s MiB are free, and it needs %s.\n' $((free / 1024)) $((large / 1024))
            continue
        fi
        describe "$scenario"
    done
} > "$work/report"
cp "$work/report" "$report"
echo "$report"
