#!/usr/bin/env bash
# compare.sh BASE: builds weir-perf of the revision BASE and of this work tree, runs them in turn and says which differences
# are real. ROUNDS (9; below 8 nothing can be told) and SCENARIOS ("udp-1 tcp-1 udp-10k tcp-10k udp-new tcp-life") may be set.
set -euo pipefail
cd "$(dirname "$0")/.."

base=${1:?the revision to compare with}
rounds=${ROUNDS:-9}
read -ra scenarios <<< "${SCENARIOS:-udp-1 tcp-1 udp-10k tcp-10k udp-new tcp-life}"
revision=$(git rev-parse --verify --quiet "$base^{commit}") || { echo "compare.sh: $base is no revision" >&2; exit 1; }

# Kept for the next time: most of it does not have to be built again. Its own build directory, for both.
place=$(realpath -m "${CARGO_TARGET_DIR:-target}")/perf-compare
mkdir -p "$place"
work=$(mktemp -d)
source=$place/source
cleanup() { git worktree remove --force "$source" 2> /dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
git worktree remove --force "$source" 2> /dev/null || true
git worktree add --quiet --detach "$source" "$revision"
echo "building $revision, then this work tree"
(cd "$source" && CARGO_TARGET_DIR=$place/base cargo build --quiet --release -p weir-perf)
CARGO_TARGET_DIR=$place/head cargo build --quiet --release -p weir-perf
declare -A program=([base]=$place/base/release/weir-perf [head]=$place/head/release/weir-perf)

chosen=()
for scenario in "${scenarios[@]}"; do chosen+=(--scenario "$scenario"); done
run() { "${program[$1]}" --quick "${chosen[@]}" --json "$work/$1.$2.json" > /dev/null; }
files() { for round in $(seq "$rounds"); do echo "$work/$1.$round.json"; done; }
for round in $(seq "$rounds"); do
    echo "round $round of $rounds"
    # Whoever comes second may find the machine warmer.
    if [ $((round % 2)) = 1 ]; then run base "$round"; run head "$round"; else run head "$round"; run base "$round"; fi
done
echo
mapfile -t base_files < <(files base)
mapfile -t head_files < <(files head)
"${program[head]}" compare --base "${base_files[@]}" --head "${head_files[@]}"

if ! command -v valgrind > /dev/null; then
    echo "valgrind is not installed (make deps): no instructions"
    exit
fi
# count WHICH SCENARIO WINDOWS: instructions in weir's rounds, and units
count() {
    local units
    units=$(valgrind --quiet --tool=callgrind --callgrind-out-file="$work/callgrind" --toggle-collect="*bench::serve*" \
        "${program[$1]}" icount "$2" --windows "$3")
    awk -v u="$units" '/^(summary|totals):/ { print $2, u; exit }' "$work/callgrind"
}
# Any revision can do it this way: a run that only prepares is taken off.
per_unit() { awk -v a="$(count "$1" "$2" 40)" -v b="$(count "$1" "$2" 0)" 'BEGIN { split(a, x); split(b, y); printf "%.0f", (x[1] - y[1]) / x[2] }'; }
echo
echo "| scenario | base, instructions | head, instructions | head / base |"
echo "|---|---|---|---|"
for scenario in "${scenarios[@]}"; do
    case $scenario in *1m | *10m | parse) continue ;; esac
    counted=("$(per_unit base "$scenario")" "$(per_unit head "$scenario")")
    awk -v s="$scenario" -v b="${counted[0]}" -v h="${counted[1]}" 'BEGIN { printf "| %s | %d | %d | %.3f |\n", s, b, h, h / b }'
done
