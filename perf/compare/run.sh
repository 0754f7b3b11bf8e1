#!/usr/bin/env bash
# weir beside what one would take instead, one after the other in the same place. Called by `make compare`; needs root.
#
#   namespace …-client            namespace …-lb                    namespace …-servers
#   weir-load ask  ── veth ──  outside   the balancer   inside  ── veth ──  weir-load serve
#   192.0.2.100                VIP 192.0.2.10                        10.0.0.20 blue, 10.0.0.21 green
#
# Every round gives each contender a turn, in namespaces of its own. The table goes to standard output, to
# perf/runs/DATE-compare.md and into README.md. Leaves no process, no namespace and no other file behind.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  cat <<'END_OF_USAGE'
perf/compare/run.sh [--quick] [--only NAME,NAME] [--rates NUMBER,NUMBER] [--results FILE]
  --quick         one short round; writes neither perf/runs nor README.md
  --only NAMES    of: routing,nftables,nginx,haproxy,weir-af_packet,weir-af_xdp; writes neither
  --rates A,B     connections and requests per second of the paced measures; writes neither
  --results FILE  also keep the lines of results
WEIR_BIN and LOAD_BIN name the binaries if they are not in target/release.
END_OF_USAGE
}

# ---------------------------------------------------------------- settings
contenders=(routing nftables nginx haproxy weir-af_packet weir-af_xdp)
# Of the paced measures, per second: connections that all contenders can carry, and requests.
rates=(2000 5000)
# Milliseconds: before what counts, what counts, and each trial of datagrams. `limit`: seconds after which no new round begins.
rounds=5 warm_up=300 window=1200 trial=250 limit=300
write=yes results=

while (($# > 0)); do
  case $1 in
    --quick) rounds=1 warm_up=150 window=500 trial=100 write=no ;;
    --only) IFS=, read -r -a contenders <<<"$2" && write=no && shift ;;
    --rates) IFS=, read -r -a rates <<<"$2" && write=no && shift ;;
    --results) results=$2 && shift ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

weir=$(realpath "${WEIR_BIN:-$root/target/release/weir}")
load=$(realpath "${LOAD_BIN:-$root/target/release/weir-load}")
# A run's number, as the tests have it: whoever started this can find what is left if it is killed.
stem=weir-${WEIR_TEST_RUN:+test-$WEIR_TEST_RUN-}compare-$$
client=$stem-client balancer=$stem-lb servers=$stem-servers
work=$(mktemp -d /tmp/weir-compare.XXXXXX)
declare -A pid_of=()

# shellcheck source=perf/compare/network.sh
source "$here/network.sh"
# shellcheck source=perf/compare/report.sh
source "$here/report.sh"

# ---------------------------------------------------------------- one turn
# What begins the balancer; the veth ends of the namespace are there.
start_contender() {
  case $1 in
    routing)
      kernel_addresses
      ip -n "$client" route add 10.0.0.0/24 via 192.0.2.1
      ip -n "$servers" route add 192.0.2.0/24 via 10.0.0.1
      ;;
    nftables)
      kernel_addresses
      ip netns exec "$balancer" nft -f "$here/nat.nft"
      ;;
    nginx) kernel_addresses && start balancer "$balancer" nginx -p "$work" -e stderr -c "$here/nginx.conf" ;;
    haproxy) kernel_addresses && start balancer "$balancer" haproxy -db -C "$here" -f "$here/haproxy.cfg" ;;
    weir-*) start balancer "$balancer" "$weir" run --config "$here/$1.toml" ;;
    *) usage >&2 && exit 2 ;;
  esac
}

# Why the contender cannot run on this machine; empty if it can. Asked before its first turn.
obstacle() {
  local program=
  case $1 in
    nftables) program=nft ;;
    nginx | haproxy) program=$1 ;;
  esac
  if [ -n "$program" ] && ! command -v "$program" >/dev/null; then echo "$program is not installed"; fi
}

skip() { # skip CONTENDER REASON
  echo "$1 cannot run here: $2" >&2
  printf '{"contender":"%s","skipped":"%s"}\n' "$1" "$(tr -d '"\\|' <<<"$2")" >>"$work/results"
  skipped[$1]=yes
}

give_up() { # give_up CONTENDER
  echo "$1 does not carry traffic; what the processes said:" >&2
  tail -n 20 "$work"/*.out >&2
  exit 1
}

# ask MEASURE ARGUMENTS...
ask() {
  ip netns exec "$client" "$load" ask "$1" "$target" --contender "$contender" "${options[@]}" \
    --warm-up "$warm_up" "${@:2}" >>"$work/results"
}

turn() {
  local contender=$1 target=192.0.2.10:8080 options=() decides=()
  make_namespaces
  start servers "$servers" "$load" serve blue=10.0.0.20:8080 green=10.0.0.21:8080
  start_contender "$contender"
  case $contender in
    routing) target=10.0.0.20:8080 ;;
    haproxy | weir-*) decides=(--decides) ;;
  esac
  if ! ip netns exec "$client" "$load" probe "$target" "${decides[@]}" 2>"$work/probe.out"; then
    # A driver that the machine does not have ends weir at once.
    if [[ $contender == weir-af_* ]] && ! running balancer; then
      skip "$contender" "$(tail -n 1 "$work/balancer.out")"
      end_turn
      return
    fi
    give_up "$contender"
  fi
  options=("${decides[@]}" --servers "${pid_of[servers]}")
  if [ -n "${pid_of[balancer]:-}" ]; then options+=(--process "${pid_of[balancer]}"); fi
  ask connections --window "$window"
  ask paced-connections --window "$window" --rate "${rates[0]}"
  ask requests --window "$window"
  ask paced-requests --window "$window" --rate "${rates[1]}"
  if [ "$contender" != haproxy ]; then ask datagrams --window "$trial"; fi
  if [ -n "${pid_of[balancer]:-}" ] && ! running balancer; then give_up "$contender"; fi
  end_turn
}

# ---------------------------------------------------------------- the whole
main() {
  if [ "$(id -u)" != 0 ]; then
    echo "the comparison needs root (network namespaces)" >&2
    exit 1
  fi
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  local round place contender reason count=${#contenders[@]}
  local begun_load
  begun_load=$(cut -d ' ' -f 1-3 /proc/loadavg)
  declare -gA skipped=()
  : >"$work/results"
  for contender in "${contenders[@]}"; do
    reason=$(obstacle "$contender")
    if [ -n "$reason" ]; then skip "$contender" "$reason"; fi
  done
  for ((round = 0; round < rounds; round++)); do
    if ((SECONDS > limit)); then
      echo "after $SECONDS s no more rounds: $round of $rounds" >&2
      break
    fi
    # Each round begins with another one.
    for ((place = 0; place < count; place++)); do
      contender=${contenders[(place + round) % count]}
      if [ -n "${skipped[$contender]:-}" ]; then continue; fi
      echo "round $((round + 1)) of $rounds: $contender" >&2
      turn "$contender"
    done
  done
  if [ -n "$results" ]; then cp "$work/results" "$results"; fi
  report "$round" "$begun_load"
}

main
