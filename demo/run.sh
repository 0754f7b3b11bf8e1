#!/usr/bin/env bash
# weir's main job on real traffic. Called by `make demo`; needs root.
#
#   namespace weir-client          namespace weir-lb            namespace weir-servers
#   curl, openssl, radclient,  ──  weir0 ─ weir ─ weir1  ──     3 nginx, 2 FreeRADIUS,
#   dig      192.0.2.100           VIPs 192.0.2.10-12           3 dnsmasq   10.0.0.20-42
#
# The far ends of weir's two ports are tap devices; weir makes them, and this script moves them to both sides.
# Ends with 0 if every step did what it should. Leaves nothing behind: no process, no namespace, no file.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
weir=$(realpath "${WEIR_BIN:-$here/../target/release/weir}")
client=weir-client-$$ balancer=weir-lb-$$ servers=weir-servers-$$
work=$(mktemp -d /tmp/weir-demo.XXXXXX)
declare -A pid_of=()
failures=0

# shellcheck source=demo/servers.sh
source "$here/servers.sh"

# ---------------------------------------------------------------- processes and namespaces
# start NAME NAMESPACE COMMAND...: runs the command there; its output is kept until the end of the demo.
start() {
  local name=$1 namespace=$2
  shift 2
  (cd "$work" && exec ip netns exec "$namespace" "$@") >"$work/$name.out" 2>&1 &
  pid_of[$name]=$!
}

# stop NAME: SIGTERM, and SIGKILL if that does not help within three seconds.
stop() {
  local pid=${pid_of[$1]} i
  unset "pid_of[$1]"
  kill -TERM "$pid" 2>/dev/null || true
  for ((i = 0; i < 30; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

clean_up() {
  local name
  trap '' INT TERM
  for name in "${!pid_of[@]}"; do stop "$name"; done
  for name in "$client" "$balancer" "$servers"; do ip netns delete "$name" 2>/dev/null || true; done
  rm -rf "$work"
}

# within SECONDS COMMAND...: tries again and again until the command succeeds.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= end)); then return 1; fi
    sleep 0.1
  done
}

make_namespaces() {
  local name
  for name in "$client" "$balancer" "$servers"; do
    ip netns add "$name"
    ip -n "$name" link set lo up
  done
}

# attach DEVICE NAMESPACE MAC ADDRESS...: takes weir's tap to one side. It needs a MAC address of its own there,
# because a tap is born with the one that weir's port has.
attach() {
  local device=$1 namespace=$2 mac=$3 address
  shift 3
  ip -n "$balancer" link set "$device" netns "$namespace"
  ip -n "$namespace" link set "$device" address "$mac"
  for address in "$@"; do ip -n "$namespace" address add "$address" dev "$device"; done
  ip -n "$namespace" link set "$device" up
}

show() { ip netns exec "$balancer" "$weir" show "$@" --socket "$work/weir.sock"; }
servers_up() { show servers json | jq -e "[.. | objects | select(has(\"up\"))] | length == 8 and all(.up)"; }
in_client() { ip netns exec "$client" "$@"; }

# ---------------------------------------------------------------- verdicts
title() { printf '\n== %s\n' "$*"; }
verdict() { # verdict OK? TEXT
  if [ "$1" = yes ]; then
    echo "   ok: $2"
  else
    echo "   FAILED: $2"
    failures=$((failures + 1))
  fi
}
# expect TEXT FOUND WANTED
expect() {
  if [ "$2" = "$3" ]; then verdict yes "$1"; else verdict no "$1: wanted '$3', got '$2'"; fi
}

# ---------------------------------------------------------------- clients
https() { # https NAME: what the server answers
  in_client curl -sS --max-time 5 --cacert "$work/ca.pem" --resolve "$1:443:192.0.2.10" "https://$1/" 2>&1 || true
}
radius() { # radius STATION: who answers
  echo "User-Name = demo, User-Password = demo, Calling-Station-Id = \"$1\"" |
    in_client radclient -x -r 1 -t 3 192.0.2.11:1812 auth testing123 2>&1 |
    sed -n 's/.*Reply-Message = "\(.*\)"/\1/p'
}
dns() { in_client dig +short +time=2 +tries=1 @192.0.2.12 whoami.example TXT 2>&1 | tr -d '"'; }
# repeat N COMMAND...: its answers with their counts, in one line: "3 www-1, 3 www-2"
repeat() {
  local count=$1 i
  shift
  for ((i = 0; i < count; i++)); do "$@"; done | sort | uniq -c | awk '{ printf "%s%s", s, $1 " " $2; s = ", " }'
}

# ---------------------------------------------------------------- steps
tls_by_name() {
  title "TLS by server name: passthrough, chosen by scripting/examples/tls_sni/tls_sni.lua"
  local www api other
  www=$(repeat 6 https www.example.com)
  api=$(repeat 3 https api.example.com)
  echo "   curl https://www.example.com/ six times: $www"
  echo "   curl https://api.example.com/ three times: $api"
  expect "www.example.com is served by the pool www, in turn" "$www" "3 www-1, 3 www-2"
  expect "api.example.com is served by the pool api, with its own certificate" "$api" "3 api-1"
  other=$(in_client timeout 5 openssl s_client -connect 192.0.2.10:443 -servername other.example.com </dev/null 2>/dev/null |
    sed -n 's/^subject=CN = //p')
  echo "   openssl s_client -servername other.example.com: certificate of $other"
  expect "a name that the script does not know goes to the default pool" "$other" "www.example.com"
}

tls_in_pieces() {
  title "The same with the ClientHello cut into one TCP segment per byte"
  local name answer wanted
  for name in api.example.com www.example.com; do
    answer=$(in_client /usr/bin/python3 "$here/hello_in_pieces.py" 192.0.2.10 443 "$name" "$work/ca.pem" 2>&1) || true
    echo "   $name: $answer"
    wanted=no
    if [[ "$answer" == "${name%%.*}"-[12]\ * ]]; then wanted=yes; fi
    verdict "$wanted" "$name is served by its pool"
  done
}

radius_persistence() {
  title "RADIUS: one server per Calling-Station-Id, kept by scripting/examples/radius/radius.lua"
  local station answers seen=()
  for station in 02-00-00-00-00-01 02-00-00-00-00-02 02-00-00-00-00-03 02-00-00-00-00-04; do
    answers=$(repeat 5 radius "$station")
    echo "   $station, five times: $answers"
    seen+=("${answers#* }")
    if [[ "$answers" =~ ^5\ radius-[12]$ ]]; then verdict yes "one server for $station"
    else verdict no "one server for $station: got '$answers'"; fi
  done
  expect "both servers have stations" "$(printf '%s\n' "${seen[@]}" | sort -u | wc -l)" 2
}

dns_in_turn() {
  title "DNS over UDP: round robin"
  local answers
  answers=$(repeat 9 dns)
  echo "   dig TXT whoami.example nine times: $answers"
  expect "each server answers a third" "$answers" "3 dns-1, 3 dns-2, 3 dns-3"
}

down() { show servers json | jq -e --arg address "$1" '[.. | objects | select(.server? == $address)] | all(.up | not)'; }
server_stops() {
  title "Two servers stop: dns-2 and www-1"
  stop dns-2
  stop www-1
  if within 10 down 10.0.0.41:53 && within 10 down 10.0.0.20:443; then verdict yes "the health monitors noticed"
  else verdict no "the health monitors noticed"; fi
  local names=("$(repeat 6 dns)" "$(repeat 4 https www.example.com)")
  echo "   dig six times: ${names[0]}"
  echo "   curl https://www.example.com/ four times: ${names[1]}"
  expect "the other DNS servers took over" "${names[0]}" "3 dns-1, 3 dns-3"
  expect "the other web server took over" "${names[1]}" "4 www-2"
}

logged() { (("$(grep -ac "\"service\":\"$1\"" "$work/connections.log")" >= $2)); }
what_an_operator_sees() {
  title "What an operator sees"
  local what
  for what in servers scripts latency; do
    printf '\n-- weir show %s\n' "$what"
    show "$what"
  done
  printf '\n-- weir show counters (without the reasons that did not occur)\n'
  show counters | awk '!($2 == "0" && NF > 2)'
  # A TCP connection is recorded when both ends have closed it, a UDP flow when it has been idle for its time.
  printf '\n-- connection log: the last lines of each service\n'
  for what in https radius dns; do
    if within 15 logged "$what" 3; then verdict yes "flows of $what are recorded"
    else verdict no "flows of $what are recorded"; fi
    grep -a "\"service\":\"$what\"" "$work/connections.log" | tail -n 3 || true
  done
  expect "every received packet is accounted for" \
    "$(show counters json | jq '.totals | .received == .forwarded + .consumed + .dropped')" true
}

clean_exit() {
  title "SIGTERM"
  local pid=${pid_of[weir]} started=$EPOCHREALTIME ended
  stop weir
  ended=$EPOCHREALTIME
  echo "   process $pid took $(awk -v a="$started" -v b="$ended" 'BEGIN { printf "%.1f", b - a }') s"
  if awk -v a="$started" -v b="$ended" 'BEGIN { exit !(b - a < 1.5) }'; then verdict yes "weir ended in time"
  else verdict no "weir ended in time"; fi
  if ip -n "$client" link show weir0 >/dev/null 2>&1; then verdict no "its devices are gone"
  else verdict yes "its devices are gone"; fi
}

main() {
  if [ "$(id -u)" != 0 ] || [ ! -c /dev/net/tun ]; then
    echo "the demo needs root and /dev/net/tun (network namespaces and tap devices)" >&2
    exit 1
  fi
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  title "Three namespaces: client, weir, servers"
  make_namespaces
  start weir "$balancer" "$weir" run --config "$here/weir.toml"
  # The worker answers this, so its ports are ready.
  if ! within 20 show counters; then
    cat "$work/weir.out"
    echo "   FAILED: weir did not start"
    exit 1
  fi
  attach weir0 "$client" 02:00:00:00:01:01 192.0.2.100/24
  attach weir1 "$servers" 02:00:00:00:02:01 10.0.0.{20,21,22,30,31,40,41,42}/24
  start_servers
  # Without the remarks of DPDK's tap driver about queues and secondary processes that there are none of.
  grep -v -e '^tap_' -e '^qdisc_' -e '^eth_dev_tap_' "$work/weir.out"
  if ! within 15 servers_up; then
    show servers || true
    tail -n 5 "$work"/{www,api,radius,dns}-*.out
    verdict no "all eight servers are up"
    exit 1
  fi
  verdict yes "all eight servers are up"
  tls_by_name
  tls_in_pieces
  radius_persistence
  dns_in_turn
  server_stops
  what_an_operator_sees
  clean_exit
  title "Result"
  if ((failures > 0)); then
    echo "   $failures step(s) FAILED; what weir said:"
    cat "$work/weir.out"
    exit 1
  fi
  echo "   every step behaved as it should ($SECONDS s)"
}

main "$@"
