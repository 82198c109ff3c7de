#!/bin/bash
# scale.sh: the whole agent with many sessions: real BIRD, real kernel WireGuard, the embedded Control Plane.
#
#   tests/lab/scale.sh AGENT [SESSIONS]     in the guest (tests/lab/vm); 100 sessions unless told
#   tests/lab/scale.sh guest SESSIONS       what runs in there
#
# It prints how long convergence took, and what a minute at rest costs: processor time, memory, writes, and
# fails when anything was written at rest. The guest is emulated, so times are those of a machine many times
# slower: `slowdown` says how many, by the same work on both sides. Counts (writes, reloads) are as they are
# anywhere. A hundred sessions take ten minutes on a busy machine with a debug build.
set -euo pipefail

spin() { # processor time in ms of hashing 128 MiB
  local start; start=$(date +%s%N)
  head -c 134217728 /dev/zero | sha256sum >/dev/null
  echo $((($(date +%s%N) - start) / 1000000))
}

host() {
  local here agent=$1 sessions=${2:-100}
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  exec "$here/vm/vmrun" --mem 3072 --timeout 1800 --copy "$agent:/lab/moenet-agent" --copy "$here/scale.sh:/lab/scale.sh" \
    --env "HOST_SPIN=$(spin)" -- "bash /lab/scale.sh guest $sessions"
}

fleet() { # folder sessions
  mkdir -p "$1/jp1"
  cat >"$1/jp1/router.yaml" <<'YAML'
token: lab-token
node: {id: 1, name: jp1, region: ap-northeast, asn: 4242420998, loopbackIpv4: 172.23.105.177, loopbackIpv6: "fd48:4242:420::1"}
YAML
  echo 'peers: []' >"$1/jp1/mesh.yaml"
  cat >"$1/jp1/bird-config.yaml" <<'YAML'
node: {id: 1, name: jp1, type: edge, bandwidth: 1G}
policy: {dn42As: 4242420998, dn42Ipv4Prefix: 172.23.105.176/28, dn42Ipv6Prefix: "fd48:4242:420::/48", rejectUnknownRoa: false}
ibgpPeers: []
YAML
  awk -v n="$2" 'BEGIN { print "sessions:"; for (i = 1; i <= n; i++) printf \
    "- {uuid: s-%d, asn: %d, status: 4, interface: wg_%d, ipv6LinkLocal: \"fe80::%x\", listenPort: %d, credential: {publicKey: \"%042dA=\"}}\n", \
    i, 4242410000 + i, i, i + 4096, 30000 + i, i }' >"$1/jp1/sessions.yaml"
}

# Nothing as long as the agent does not listen yet.
metric() { { curl -s http://127.0.0.1:24368/metrics || true; } | awk -v name="$1" '$1 == name { print $2 }'; }
cpu_ms() { awk '{ print ($14 + $15) * 10 }' "/proc/$1/stat"; } # clock ticks are 10 ms
memory_kb() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status"; }

guest() {
  local sessions=$1 fleet agent bird one start active seen=
  modprobe wireguard; modprobe dummy
  mkdir -p /run/bird /etc/bird /lab/state
  echo 'router id 192.0.2.1; protocol device {}' >/etc/bird/bird.conf
  bird -f -c /etc/bird/bird.conf -s /run/bird/bird.ctl 2>/lab/bird.log & bird=$!
  fleet /lab/fleet "$sessions"
  cat >/lab/config.yaml <<YAML
node: {name: jp1}
controlPlane: {url: "http://127.0.0.1:8080", token: lab-token}
state: {directory: /lab/state}
wireguard: {privateKeyPath: /lab/private.key}
YAML
  /lab/moenet-agent control-plane --fleet /lab/fleet --listen 127.0.0.1:8080 2>/lab/fleet.log & fleet=$!
  until curl -s http://127.0.0.1:8080/ >/dev/null; do kill -0 $fleet; sleep 0.2; done
  start=$(date +%s)
  /lab/moenet-agent --config /lab/config.yaml run 2>/lab/agent.log & agent=$!
  while :; do
    sleep 2
    for one in agent bird fleet; do # a dead one would be waited for in vain
      kill -0 "${!one}" 2>/dev/null || { echo "$one has ended" >&2; tail -n 20 "/lab/$one.log" >&2; return 1; }
    done
    active=$(metric 'moenet_agent_sessions_total{status="active"}')
    [ "${active:-0}" = "$sessions" ] && break
    [ "$active" = "$seen" ] || { seen=$active; echo "# ${active:-0} of $sessions after $(($(date +%s) - start)) s"; }
    if [ $(($(date +%s) - start)) -gt 900 ]; then
      echo "only ${active:-none} of $sessions after 15 minutes" >&2; tail -n 20 /lab/agent.log >&2; return 1
    fi
  done
  echo "sessions $sessions"
  echo "slowdown $(awk -v guest="$(spin)" -v host="$HOST_SPIN" 'BEGIN { printf "%.1f", guest / host }')"
  echo "converged_seconds $(($(date +%s) - start)) (in the guest)"
  echo "converged_cpu_ms agent $(cpu_ms $agent) control_plane $(cpu_ms $fleet) bird $(cpu_ms $bird)"
  # Until its reports have arrived, the agent is not at rest.
  until [ "$(metric moenet_agent_outbox_pending)" = 0 ]; do
    [ $(($(date +%s) - start)) -lt 1200 ] || { echo "reports still wait after 20 minutes" >&2; return 1; }
    sleep 2
  done
  echo "acknowledged_seconds $(($(date +%s) - start))"
  sleep 40
  local names="netlink_writes bird_reloads bird_file_writes bird_checks state_writes" name before=() after=()
  for name in $names; do before+=("$(metric moenet_agent_${name}_total)"); done
  local agent_before fleet_before bird_before
  agent_before=$(cpu_ms $agent) fleet_before=$(cpu_ms $fleet) bird_before=$(cpu_ms $bird)
  sleep 60
  echo "minute_at_rest_cpu_ms agent $(($(cpu_ms $agent) - agent_before))" \
    "control_plane $(($(cpu_ms $fleet) - fleet_before)) bird $(($(cpu_ms $bird) - bird_before))"
  for name in $names; do after+=("$(metric moenet_agent_${name}_total)"); done
  echo "written_in_total   $names: ${before[*]}"
  echo "a_minute_later     $names: ${after[*]}"
  echo "memory_kb agent $(memory_kb $agent VmRSS) most $(memory_kb $agent VmHWM) control_plane $(memory_kb $fleet VmRSS)"
  echo "log_lines $(wc -l </lab/agent.log)"
  [ "${before[*]}" = "${after[*]}" ] || { echo "something was written at rest" >&2; tail -n 5 /lab/agent.log >&2; return 1; }
}

case ${1:-} in
  '') sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
  guest) guest "$2" ;;
  *) host "$@" ;;
esac
