#!/bin/bash
# guest.sh: the router of run.sh, in the guest: looks for what was acknowledged before, then changes things until the
# power is cut. What it prints as "acknowledged KEY VALUE" must be there after the next boot.
set -euo pipefail

DISK=/disk
STATE=$DISK/state
SESSIONS=6
API=http://127.0.0.1:24368

say() { echo "$*"; }
fail() { echo "FAILED: $*" >&2; tail -n 40 /lab/agent.log >&2; exit 1; }

mount_disk() {
  local at serial
  for at in /sys/block/vd*; do
    serial=; read -r serial <"$at/serial" || :
    [ "$serial" != vmrundisk ] || { mkdir -p $DISK; mount -t ext4 "/dev/${at##*/}" $DISK; return; }
  done
  fail "no disk"
}

# The Control Plane is another machine, which keeps its power: its files are not on the disk, and are made again.
FLEET=/lab/fleet
fleet() {
  mkdir -p $FLEET/jp1
  cat >$FLEET/jp1/router.yaml <<'YAML'
token: lab-token
node: {id: 1, name: jp1, region: ap-northeast, asn: 4242420998, loopbackIpv4: 172.23.105.177, loopbackIpv6: "fd48:4242:420::1"}
YAML
  echo 'peers: []' >$FLEET/jp1/mesh.yaml
  cat >$FLEET/jp1/bird-config.yaml <<'YAML'
node: {id: 1, name: jp1, type: edge, bandwidth: 1G}
policy: {dn42As: 4242420998, dn42Ipv4Prefix: 172.23.105.176/28, dn42Ipv6Prefix: "fd48:4242:420::/48", rejectUnknownRoa: false}
ibgpPeers: []
YAML
  sessions "${1:-1420}"
}

sessions() { # MTU of session 6
  local number
  {
  echo "sessions:"
  for ((number = 1; number <= SESSIONS; number++)); do
    printf -- '- {uuid: s-%d, asn: %d, status: 4, interface: wg_%d, ipv6LinkLocal: "fe80::%x", listenPort: %d, mtu: %d, credential: {publicKey: "%042dA="}}\n' \
      $number $((4242420000 + number)) $number $((number + 4096)) $((30000 + number)) \
      "$([ $number = $SESSIONS ] && echo "$1" || echo 1420)" $number
  done
  } >$FLEET/sessions.new
  mv $FLEET/sessions.new $FLEET/jp1/sessions.yaml
}

install() {
  mkdir -p $DISK/bird $STATE
  echo 'router id 192.0.2.1; protocol device {}' >$DISK/bird/bird.conf
  cat >$DISK/config.yaml <<YAML
node: {name: jp1}
controlPlane: {url: "http://127.0.0.1:8080", token: lab-token, syncInterval: 2}
state: {directory: $STATE}
bird: {directory: $DISK/bird}
wireguard: {privateKeyPath: $DISK/private.key}
YAML
  sync
}

start() {
  modprobe wireguard; modprobe dummy; ip link set lo up
  mkdir -p /run/bird
  bird -f -c $DISK/bird/bird.conf -s /run/bird/bird.ctl 2>/lab/bird.log & bird=$!
  /lab/moenet-agent control-plane --fleet $FLEET --listen 127.0.0.1:8080 2>/lab/control_plane.log & control_plane=$!
  until curl -s http://127.0.0.1:8080/ >/dev/null; do kill -0 $control_plane; sleep 0.2; done
  /lab/moenet-agent --config $DISK/config.yaml run 2>/lab/agent.log & agent=$!
}

agent() { /lab/moenet-agent --config $DISK/config.yaml "$@"; }

eventually() { # what command…
  local what=$1 waited=0; shift
  until "$@" >/lab/tried 2>&1; do
    kill -0 $agent 2>/dev/null || fail "the agent ended"
    kill -0 $bird 2>/dev/null || fail "BIRD ended: $(tail -n 5 /lab/bird.log)"
    sleep 0.5; waited=$((waited + 1))
    [ $waited -lt 120 ] || fail "not within a minute: $what: $(cat /lab/tried)"
  done
}

all_active() { curl -s $API/metrics | grep -qx "moenet_agent_sessions_total{status=\"active\"} $SESSIONS"; }
mtu_of() { ip -o link show dev "$1" | sed -n 's/.* mtu \([0-9]*\) .*/\1/p'; }
has_mtu() { [ "$(mtu_of "$1")" = "$2" ] || { mtu_of "$1"; return 1; }; }
last() { awk -v key="$1" '$1 == key { value = $2 } END { print value }' /lab/acknowledged; } # key

# The last change may have been made without being acknowledged; an older one than the acknowledged is a loss.
override() { sed -n 's/.*mtu: *\([0-9]*\).*/\1/p' "$STATE/overrides/sessions/$1.yaml" 2>/dev/null; }

verify() {
  local name value
  for name in wg_1 wg_2; do
    value=$(last "$name")
    [ -z "$value" ] || [ "$(override $name)" -ge "$value" ] ||
      fail "the override of $name is $(override $name), acknowledged was $value"
  done
  value=$(last drained)
  [ -z "$value" ] || eventually "maintenance is at least $value" at_least "$value"
  [ -z "$(last key)" ] || [ "$(last key)" = "$(key)" ] || fail "another private key"
  [ -z "$(find $STATE $DISK/bird -name '*.broken' -print -quit)" ] || fail "a file was taken for broken"
  eventually "all sessions are configured" all_active
  eventually "the plan is empty" agent plan
  [ "$(wg show wg_1 public-key)" = "$(key)" ] || fail "the links have another key than the file"
  for name in wg_1 wg_2; do
    [ -z "$(override $name)" ] || has_mtu $name "$(override $name)" || fail "the MTU of $name is $(mtu_of $name)"
  done
  eventually "wg_$SESSIONS has the Control Plane's MTU" has_mtu wg_$SESSIONS 1420
  agent validate >/lab/tried 2>&1 || fail "a document is invalid: $(cat /lab/tried)"
  git -c safe.directory='*' -C $STATE fsck --no-dangling >/lab/tried 2>&1 || fail "the history is damaged: $(cat /lab/tried)"
}

# The changes of the mode are counted: odd is drained.
at_least() {
  local mode; mode=$(agent maintenance -o json)
  [ "$1" != "$(((0 + $1) / 2 * 2))" ] && grep -q '"enabled": *true' <<<"$mode" && return
  [ "$1" = "$(((0 + $1) / 2 * 2))" ] && grep -q '"enabled": *false' <<<"$mode" && return
  # One change more may have been made without being acknowledged.
  grep -qx "tried drained $(($1 + 1))" /lab/acknowledged
}

# A slow guest's BIRD confirms later than the verb waits; the mode is written down before.
is_pending() { grep -q "BIRD has not confirmed yet" /lab/tried; }

key() { wg pubkey <$DISK/private.key; }

change() { # number
  local name=wg_$(($1 % 2 + 1)) mtu=$((1280 + $1))
  agent override sessions/$name tunnel.mtu=$mtu --reason "power cut $1" >/lab/tried 2>&1 || fail "override: $(cat /lab/tried)"
  say "acknowledged $name $mtu"
  sessions $((1281 + $1))
  [ $(($1 % 3)) != 0 ] || {
    drained=$((drained + 1))
    say "tried drained $drained"
    agent maintenance "$([ $((drained % 2)) = 1 ] && echo start || echo stop)" >/lab/tried 2>&1 || is_pending ||
      fail "maintenance: $(cat /lab/tried)"
    say "acknowledged drained $drained"
  }
}

# An agent that flushes nothing must have a git that flushes nothing: each of its flushes takes the journal along.
[ -z "${MOENET_AGENT_FLUSH_NOTHING:-}" ] || {
  printf '#!/bin/sh\nexec env GIT_TEST_FSYNC=0 %s "$@"\n' "$(command -v git)" >/usr/local/bin/git
  chmod +x /usr/local/bin/git
}

say begun
mount_disk
fleet
[ -e $DISK/config.yaml ] || install
start
if [ -s /lab/acknowledged ] || [ "$1" = verify ]; then verify; else eventually "all sessions are configured" all_active; fi
[ "$1" = work ] || { say "all acknowledged changes are there, and everything converged"; exit; }
say "acknowledged key $(key)"
drained=$(last drained); drained=${drained:-0}
number=$(last number); number=${number:-0}
while :; do
  number=$((number + 1))
  say "acknowledged number $number"
  change $number
done
