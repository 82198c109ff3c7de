#!/bin/bash
# demo.sh: one router and one neighbour in network namespaces of this machine, from nothing to an Established
# session with routes both ways, and an edit of the fleet followed live. Nothing outside a temporary folder and
# the namespaces is touched. Needs root.
#
#   examples/demo.sh           runs and cleans up
#   examples/demo.sh --keep    leaves it up until Enter is pressed, and says how to look around
#
# MOENET_AGENT=PATH uses a program that is built already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
keep= holders=() step=0
case ${1:-} in
  --keep) keep=yes ;;
  '') ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
[ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces: run it as root" >&2; exit 1; }
work=$(mktemp -d /tmp/moenet-demo.XXXXXX)
export PATH=$PATH:/usr/sbin:/sbin

begin() { step=$((step + 1)); printf '%2d. %s ... ' "$step" "$1"; }
ok() { printf '✔%s\n' "${1:+ $1}"; }
logs() {
  local f
  for f in "$work"/*.log; do [ -s "$f" ] && { printf '\n──── %s\n' "${f##*/}"; tail -n 40 "$f"; }; done
  printf '\n──── BIRD of the router\n'; in_router birdc -s "$work/bird.ctl" show protocols all || true
  in_router wg show || true
}
finish() { # each namespace's first process takes all others in it along
  local rc=$? pid
  trap - EXIT
  if [ "$rc" != 0 ]; then printf '✘\n'; logs >&2 || true; fi
  # unshare ignores anything milder while its child lives
  for pid in ${holders[@]+"${holders[@]}"}; do kill -KILL "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
  exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT TERM

# A namespace of network, mounts and processes; userspace WireGuard's sockets are private to it.
namespace() { # name
  local ready=$work/$1.ready
  unshare --net --mount --pid --fork --kill-child --mount-proc sh -c '
    mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard && mount -t sysfs sysfs /sys
    ip link set lo up; echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; touch "$1"; exec sleep infinity' sh "$ready" &
  eval "$1=$!"; holders+=("$!")
  wait_for 10 test -e "$ready"
}
inside() { # holder command...
  local ns=/proc/$1/ns; shift
  nsenter --net="$ns/net" --mount="$ns/mnt" --pid="$ns/pid_for_children" -- "$@"
}
in_router() { inside "$router" "$@"; }
in_neighbour() { inside "$neighbour" "$@"; }

wait_for() { # seconds command...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}
prints() { # text command...: the command's output contains the text
  local text=$1; shift
  "$@" 2>/dev/null | grep -F -- "$text" >/dev/null
}
program() {
  [ -n "${MOENET_AGENT:-}" ] && { printf '%s\n' "$MOENET_AGENT"; return; }
  cargo build --release --quiet && printf '%s/release/moenet-agent\n' "${CARGO_TARGET_DIR:-$PWD/target}"
}
loopback() { # the kernel's dummy device, or lo where it has none
  if in_router ip link add probe0 type dummy 2>/dev/null; then in_router ip link del probe0; echo dummy0; else echo lo; fi
}
put() { sed -e "s|FOLDER|$work|g; s|LOOPBACK|$(loopback)|g; s|NEIGHBOUR_KEY|$neighbour_key|g" "$1" > "$2"; }

begin "Debian packages"; tests/deps.sh demo; ok
begin "moenet-agent (a first build takes minutes)"; agent=$(program); ok "$("$agent" --version)"

begin "two namespaces and a link between them"
namespace router; namespace neighbour
ip link add "md$$" netns "$router" type veth peer name uplink netns "$neighbour"
in_router sh -c "ip link set md$$ name uplink && ip addr add 192.0.2.1/24 dev uplink && ip link set uplink up"
in_neighbour sh -c 'ip addr add 192.0.2.2/24 dev uplink && ip link set uplink up'
ok

begin "the neighbour: WireGuard and BIRD, configured by hand"
umask 077
wg genkey > "$work/private.key"; wg genkey > "$work/neighbour.key"
neighbour_key=$(wg pubkey < "$work/neighbour.key")
in_neighbour sh -c 'ip link add wg0 type wireguard 2>/dev/null || wireguard-go wg0 >/dev/null 2>&1'
in_neighbour wg set wg0 private-key "$work/neighbour.key" listen-port 51820 \
  peer "$(wg pubkey < "$work/private.key")" endpoint 192.0.2.1:21080 allowed-ips 0.0.0.0/0,::/0
in_neighbour sh -c 'ip link set wg0 addrgenmode none mtu 1420 && ip addr add fe80::1080/64 dev wg0 && ip link set wg0 up'
in_neighbour bird -c "$PWD/examples/demo/neighbour.conf" -s "$work/neighbour.ctl" -P "$work/neighbour.pid"
ok

begin "the embedded Control Plane over a fleet directory"
mkdir -p "$work/fleet/jp1" "$work/bird"
for f in examples/demo/fleet/jp1/*.yaml; do put "$f" "$work/fleet/jp1/${f##*/}"; done
put examples/demo/config.yaml "$work/config.yaml"
in_router "$agent" control-plane --fleet "$work/fleet" --listen 127.0.0.1:8080 >"$work/control-plane.log" 2>&1 &
wait_for 10 in_router curl -s http://127.0.0.1:8080/
ok

begin "the agent"
in_router "$agent" --config "$work/config.yaml" run >"$work/agent.log" 2>&1 &
wait_for 20 in_router curl -sf http://127.0.0.1:24368/status
wait_for 20 test -s "$work/bird/bird.conf"
ok "it wrote BIRD's configuration"

begin "the router's BIRD"
in_router bird -c "$work/bird/bird.conf" -s "$work/bird.ctl" -P "$work/bird.pid" 2>"$work/bird.log"
ok

begin "session Established on the router"
wait_for 60 prints Established in_router birdc -s "$work/bird.ctl" show protocols; ok
begin "session Established on the neighbour"
wait_for 30 prints Established in_neighbour birdc -s "$work/neighbour.ctl" show protocols jp1; ok

begin "routes on the router"
for prefix in 172.20.16.0/24 fd42:1080::/48; do
  wait_for 20 prints 4242421080 in_router birdc -s "$work/bird.ctl" show route "$prefix"
done
ok "172.20.16.0/24 and fd42:1080::/48"
begin "routes on the neighbour"
for prefix in 172.23.105.176/28 fd48:4242:420::/48; do
  wait_for 20 prints 4242420998 in_neighbour birdc -s "$work/neighbour.ctl" show route "$prefix"
done
ok "172.23.105.176/28 and fd48:4242:420::/48"

begin "the status"
wait_for 20 prints '"active":1' in_router curl -s http://127.0.0.1:24368/status
ok; in_router "$agent" --config "$work/config.yaml" status

begin "an edit of the fleet: mtu 1420 becomes 1400"
index=$(in_router cat /sys/class/net/wg_4242421080/ifindex)
sed -i 's/mtu: 1420/mtu: 1400/' "$work/fleet/jp1/sessions.yaml"
wait_for 20 prints "mtu 1400" in_router ip link show wg_4242421080
[ "$index" = "$(in_router cat /sys/class/net/wg_4242421080/ifindex)" ]
prints Established in_neighbour birdc -s "$work/neighbour.ctl" show protocols jp1
ok "in place, the session stayed up"

if [ -n "$keep" ]; then
  ns=/proc/$router/ns
  enter="nsenter --net=$ns/net --mount=$ns/mnt --pid=$ns/pid_for_children"
  cat <<END

It stays up until you press Enter. From another terminal:
  $enter $agent --config $work/config.yaml get
  $enter birdc -s $work/bird.ctl show protocols all
  $enter wg show
  ${EDITOR:-vi} $work/fleet/jp1/sessions.yaml     edit the fleet, watch $work/agent.log
  ls -R $work/state                                the documents
END
  read -r _ || sleep infinity
fi
begin "cleaning up"; ok
