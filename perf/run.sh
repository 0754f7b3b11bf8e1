#!/usr/bin/env bash
# Measures everything and writes a dated report with plots to perf/runs/. About 20 minutes and two processors; QUICK=1: a
# few minutes and more noise. `make perf` builds first, and before that asks with --check whether it may begin: a report names
# the revision that it is of, so everything has to be committed. DIRTY=1: it has not, and the report says so.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
# As it is shipped: release.sh.
shipped=$target/pgo/release
perf=$shipped/weir-perf
refuse() { echo "make perf: $1; DIRTY=1 measures all the same, and the report says so" >&2; exit 1; }
head=$(git rev-parse --short HEAD)
if [ -z "${DIRTY:-}" ] && [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    refuse "there are changes that are not committed (git status), so no revision says what is measured: commit or stash them"
fi
if [ "${1:-}" = --check ]; then exit; fi
# Programs have it from when they were built.
revision=$("$perf" --version | cut -d' ' -f2)
case $revision:$("$shipped/weir" --version) in
    $head:*+$head) ;;
    *) [ -n "${DIRTY:-}" ] || refuse "what is in $shipped is of $revision, this is $head: make perf builds it" ;;
esac
quick=(); rounds=40; fewer=(--rounds 31); bench=()
if [ -n "${QUICK:-}" ]; then
    quick=(--quick); rounds=10; fewer=()
    bench=(--warm-up-time 0.3 --measurement-time 0.5 --sample-size 10)
fi
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

report=perf/runs/$(date +%F).md
number=2
while [ -e "$report" ]; do
    report=perf/runs/$(date +%F)-$number.md
    number=$((number + 1))
done

step() { echo "make perf: $1"; }

step "cycles"
"$perf" "${quick[@]}" --json "$results/bench.json" > "$results/bench.md"
step "cycles with ten million flows"
# KiB that they take.
large=6000000
free=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
if [ "$free" -ge "$large" ]; then
    "$perf" --quick --scenario udp-10m --json "$results/large.json" > "$results/large.md"
else
    echo "Not measured: $((free / 1024)) MiB of memory were free, and it takes $((large / 1024))." > "$results/large.md"
fi
step "latency and loss in process"
"$perf" load "${quick[@]}" --json "$results/near.json" > "$results/near.md"
step "latency and loss in process, with a million connections"
"$perf" load "${quick[@]}" "${fewer[@]}" --at 50 --scenario tcp-1m > "$results/costly.md"
step "latency and loss over memif"
"$perf" load "${quick[@]}" "${fewer[@]}" --weir "$shipped/weir" --json "$results/far.json" > "$results/far.md"
step "latency beside flows that begin"
for share in 0% 1%; do
    printf '\n### %s of the packets open flows\n\n' "$share"
    "$perf" load "${quick[@]}" "${fewer[@]}" --at 50 --new-flows "$share"
done > "$results/mixed.md"
step "two workers"
"$perf" pair --rounds "$rounds" > "$results/pair.md"
step "inserts on the other worker"
"$perf" tables "${quick[@]}" --json "$results/tables.json" > "$results/tables.md"
step "stages"
# In a place of its own: target/criterion has what others have left there.
CRITERION_HOME=$results/criterion cargo bench --quiet -p weir-perf --bench stages -- "${bench[@]}" > "$results/stages.log" 2>&1 || { cat "$results/stages.log"; exit 1; }
step "profile"
# Without it the report is still one.
{ perf/profile.sh "${report%.md}-profile.md" "$perf" 2>&1 || echo "The profile could not be made."; } | tee "$results/profile.log"
if [ -e "${report%.md}-profile.md" ]; then
    echo "Functions, and the instructions that are waited for: [$(basename "${report%.md}")-profile.md]($(basename "${report%.md}")-profile.md)." > "$results/profile.md"
else
    cp "$results/profile.log" "$results/profile.md"
fi
if command -v valgrind > /dev/null; then
    step "instructions"
    # Dearer ones are in the table; they are no reason to lose the report.
    { echo '```'; perf/icounts.sh --check || true; echo '```'; } > "$results/icounts.md"
fi
{
    echo "Revision $revision; $(rustc --version), fat LTO, laid out by a profile; DPDK $(pkg-config --modversion libdpdk), static;"
    if [ "$revision" != "$head" ]; then
        echo "Not of a commit (DIRTY=1): what was measured was built of $revision, stages and instructions of $(git describe --always --dirty);"
    fi
    echo "$(nproc) processors, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1); Linux $(uname -r); huge pages free: $(awk '/HugePages_Free/ { print $2 }' /proc/meminfo);"
    echo "load over the last 15 minutes $(cut -d' ' -f3 /proc/loadavg): what others did meanwhile is in every figure, and the floors and bare loops say how much."
} > "$results/machine.md"
"$perf" publish "$results" "$report"
