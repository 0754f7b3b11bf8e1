#!/usr/bin/env bash
# Measures everything and writes a dated report with plots to perf/runs/. About 20 minutes and two processors; QUICK=1: a
# few minutes and more noise. `make perf` builds first.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
# As it is shipped: release.sh.
shipped=$target/pgo/release
perf=$shipped/weir-perf
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
step "latency and loss in process"
"$perf" load "${quick[@]}" --json "$results/near.json" > "$results/near.md"
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
cargo bench --quiet -p weir-perf --bench stages -- "${bench[@]}" > "$results/stages.log" 2>&1 || { cat "$results/stages.log"; exit 1; }
cp -r "$target/criterion" "$results/criterion"
if command -v valgrind > /dev/null; then
    step "instructions"
    # Dearer ones are in the table; they are no reason to lose the report.
    { echo '```'; perf/icounts.sh --check || true; echo '```'; } > "$results/icounts.md"
fi
{
    echo "Revision $(git describe --always --dirty); $(rustc --version), fat LTO, laid out by a profile; DPDK $(pkg-config --modversion libdpdk), static;"
    echo "$(nproc) processors, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1); Linux $(uname -r); huge pages free: $(awk '/HugePages_Free/ { print $2 }' /proc/meminfo);"
    echo "load over the last 15 minutes $(cut -d' ' -f3 /proc/loadavg): what others did meanwhile is in every figure, and the floors and bare loops say how much."
} > "$results/machine.md"
"$perf" publish "$results" "$report"
