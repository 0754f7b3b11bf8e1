# shellcheck shell=bash
# Processes and namespaces of the comparison. Sourced by run.sh, which sets $work, $client, $balancer, $servers, pid_of.

# start NAME NAMESPACE COMMAND...: runs the command there; `ip netns exec` becomes it.
start() {
  local name=$1 namespace=$2
  shift 2
  (cd "$work" && exec ip netns exec "$namespace" "$@") >"$work/$name.out" 2>&1 &
  pid_of[$name]=$!
}

running() { kill -0 "${pid_of[$1]}" 2>/dev/null; }

# stop NAME: SIGTERM, and SIGKILL if that does not help within two seconds.
stop() {
  local pid=${pid_of[$1]} i
  unset "pid_of[$1]"
  kill -TERM "$pid" 2>/dev/null || true
  for ((i = 0; i < 40; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

end_turn() {
  local name
  for name in "${!pid_of[@]}"; do stop "$name"; done
  for name in "$client" "$balancer" "$servers"; do ip netns delete "$name" 2>/dev/null || true; done
}

clean_up() {
  trap '' INT TERM
  end_turn
  rm -rf "$work"
}

# One queue, because a socket of AF_XDP has one. Without offloads: what one end leaves to the hardware (checksums, cutting
# into segments) nobody does on the way to a driver of DPDK. The same for all contenders.
make_pair() { # make_pair NAME NAMESPACE: the balancer's end has the name, the other one is `lb`
  ip link add "$1" netns "$balancer" numrxqueues 1 numtxqueues 1 type veth \
    peer name lb netns "$2" numrxqueues 1 numtxqueues 1
  bare_link "$balancer" "$1"
  bare_link "$2" lb
}

bare_link() { # bare_link NAMESPACE DEVICE
  ip netns exec "$1" ethtool -K "$2" tx off rx off tso off gso off gro off >/dev/null
  ip -n "$1" link set "$2" up
}

make_namespaces() {
  local name
  for name in "$client" "$balancer" "$servers"; do
    ip netns add "$name"
    ip -n "$name" link set lo up
    # Ports of closed connections are used again after a second (TIME-WAIT, RFC 6191) and not after a minute.
    ip netns exec "$name" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 \
      net.ipv4.ip_local_port_range="1024 65535" net.ipv4.tcp_tw_reuse=1
  done
  make_pair outside "$client"
  make_pair inside "$servers"
  ip -n "$client" address add 192.0.2.100/24 dev lb
  ip -n "$servers" address add 10.0.0.20/24 dev lb
  ip -n "$servers" address add 10.0.0.21/24 dev lb
}

# The balancer is the kernel, or a program on its sockets.
kernel_addresses() {
  ip -n "$balancer" address add 192.0.2.1/24 dev outside
  ip -n "$balancer" address add 192.0.2.10/32 dev outside
  ip -n "$balancer" address add 10.0.0.1/24 dev inside
  ip netns exec "$balancer" sysctl -qw net.ipv4.ip_forward=1
}
