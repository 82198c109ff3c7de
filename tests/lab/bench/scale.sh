#!/bin/bash
# scale.sh: the whole agent with many sessions, real BIRD and the embedded Control Plane: how long it takes to
# converge, and what a minute at rest costs.
#
#   tests/lab/bench/scale.sh [--soak MINUTES] AGENT [SESSIONS]     here, in namespaces of its own
#   tests/lab/bench/scale.sh --guest AGENT [SESSIONS]              in the guest of tests/lab/vm, on kernel WireGuard
#   tests/lab/bench/scale.sh --counts AGENT [SESSIONS]             here, fails when a cold start, a sync without a
#                                                            change, one changed session, one repaired address or a
#                                                            restart takes more operations than are allowed (3); any build
#
# AGENT is a release build (cargo build --release: target/release/moenet-agent); 1000 sessions unless told, 100
# in the guest. Here the links are those of wireguard-stand-in: a process of wireguard-go for each session would
# be measured instead of the agent. The guest is emulated, so its times are those of a machine many times slower
# (`slowdown`); counts of writes and reloads are as they are anywhere.
#
# Progress goes to standard error, the table to standard output. It fails when no minute passes without a write
# within a quarter of an hour. --soak: that many more minutes with polls every two seconds, after which memory and
# open files must be what they were. Here 1000 sessions take about five minutes.
set -euo pipefail

API=http://127.0.0.1:24368/metrics
COUNTERS="netlink_writes sysctl_writes firewall_writes bird_reloads bird_file_writes bird_checks state_writes"

say() { echo "# $*" >&2; }
row() { printf '%-28s %12s  %s\n' "$1" "$2" "${3:-}"; }

spin() { # processor time in ms of hashing 128 MiB
  local start; start=$(date +%s%N)
  head -c 134217728 /dev/zero | sha256sum >/dev/null
  echo $((($(date +%s%N) - start) / 1000000))
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
metric() { { curl -s $API || true; } | awk -v name="moenet_agent_$1" '$1 == name { print $2 }'; }
counted() { { curl -s $API || true; } | awk -v names="$COUNTERS" '
  BEGIN { split(names, order) } { value[$1] = $2 }
  END { for (i = 1; i in order; i++) printf "%s=%s ", order[i], value["moenet_agent_" order[i] "_total"] }'; }
cpu_ms() { awk '{ print ($14 + $15) * 10 }' "/proc/$1/stat"; } # clock ticks are 10 ms
memory_kb() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status"; }
files() { find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l; }
since() { echo $(($(date +%s) - $1)); }

alive() { # a dead one would be waited for in vain
  local one
  for one in agent bird control_plane; do
    kill -0 "${!one}" 2>/dev/null || { say "$one has ended"; tail -n 20 "$lab/$one.log" >&2; return 1; }
  done
}

converge() { # start
  local active seen=
  while :; do
    sleep 2; alive
    active=$(metric 'sessions_total{status="active"}')
    [ "${active:-0}" = "$sessions" ] && break
    [ "$active" = "$seen" ] || { seen=$active; say "${active:-0} of $sessions after $(since "$1") s"; }
    [ "$(since "$1")" -lt 900 ] || { say "only ${active:-none} after 15 minutes"; tail -n 20 "$lab/agent.log" >&2; return 1; }
  done
  row converged "$(since "$1") s" "$(metric bird_reloads_total) reloads of BIRD"
  row "  processor time" "$(cpu_ms "$agent") ms" "control plane $(cpu_ms "$control_plane"), bird $(cpu_ms "$bird")"
  until [ "$(metric outbox_pending)" = 0 ]; do
    alive; [ "$(since "$1")" -lt 1200 ] || { say "reports still wait after 20 minutes"; return 1; }
    sleep 2
  done
  row acknowledged "$(since "$1") s" "the Control Plane has every session's report"
}

# How much a step may take: a number, and one for each session. Opened files, observations and builds are those of a busy machine,
# where the tick of ten seconds adds some; a kernel without dummy links adds a load of BIRD.
COLD="observations:7:0 desired_builds:12:0 netlink_writes:10:5 sysctl_writes:4:6 bird_reloads:3:0 bird_checks:3:0 state_writes:40:7 fsyncs:28:0 programs:10:0 files_opened:1500:60"
NOTHING="observations:4:0 desired_builds:1:0 netlink_writes:0:0 sysctl_writes:0:0 bird_reloads:0:0 bird_checks:0:0 state_writes:0:0 fsyncs:0:0 programs:0:0 files_opened:50:1"
CHANGE="observations:6:0 desired_builds:2:0 netlink_writes:2:0 sysctl_writes:0:0 bird_reloads:0:0 bird_checks:0:0 state_writes:6:0 fsyncs:8:0 programs:2:0 files_opened:200:4"
DRIFT="observations:4:0 desired_builds:1:0 netlink_writes:1:0 sysctl_writes:0:0 bird_reloads:0:0 bird_checks:0:0 state_writes:4:0 fsyncs:2:0 programs:0:0 files_opened:60:2"
CLASSES="bird_reloads:1:0 bird_checks:1:0 netlink_writes:0:0 sysctl_writes:0:0 fsyncs:6:0"
RESTART="state_writes:4:0 fsyncs:4:0 netlink_writes:0:0 sysctl_writes:0:0 firewall_writes:0:0 bird_reloads:0:0 bird_file_writes:0:0"
# Processes of git of a cold start, whatever the number of sessions.
GITS=2

within() { # what allowed
  local allowed name fixed each most value exceeded=
  for allowed in $2; do
    IFS=: read -r name fixed each <<<"$allowed"
    most=$((fixed + each * sessions)) value=$(($(metric "${name}_total") - ${before[$name]:-0}))
    [ "$value" -le "$most" ] || exceeded="$exceeded $name"
    row "  $1: $name" "$value" "at most $most$([ "$value" -le "$most" ] || echo ' EXCEEDED')"
  done
  [ -z "$exceeded" ] || { failed=3; explain "$1:$exceeded" >&2; }
}

explain() { # what: the files and the log since mark
  echo "EXCEEDED in $1. Files since then:"
  find "$lab/state" -newer "$lab/marked" -type f ! -path '*/.git/*' -printf '%P %s bytes\n' | sed -n 1,20p || true
  echo "The log since then:"
  tail -n "+$((marked_line + 1))" "$lab/agent.log" | tail -n 40
}

# What all counters are now, to count from.
declare -A before
marked_line=0
mark() {
  local name value
  touch "$lab/marked"; marked_line=$(wc -l <"$lab/agent.log")
  while read -r name value; do name=${name#moenet_agent_}; before[${name%_total}]=$value; done < <(curl -s $API | grep '^moenet_agent_[a-z_]*_total ')
}

quiet() { # until nothing was written for longer than a tick of ten seconds: each writes what statuses have learned
  local start last now; start=$(date +%s)
  last=$(counted) now=$start
  until [ "$(since "$now")" -ge 12 ]; do
    alive; [ "$(since "$start")" -lt 120 ] || { say "something is written all the time: $last"; return 1; }
    sleep 2
    [ "$(counted)" = "$last" ] || { last=$(counted); now=$(date +%s); }
  done
}

until_true() { # what condition
  local start; start=$(date +%s)
  until eval "$2"; do alive; [ "$(since "$start")" -lt 60 ] || { say "not within a minute: $1"; return 1; }; sleep 0.2; done
}

counts() {
  local failed=0 value
  within cold "$COLD"
  value=$(wc -l <"$lab/git.calls")
  row "  cold: git processes" "$value" "at most $GITS"
  [ "$value" -le "$GITS" ] || { failed=3; echo "EXCEEDED in cold: git processes" >&2; cat "$lab/git.calls" >&2; }
  # The first classes of all links are one reload.
  mark
  until_true "the classes of the links are known" "[ -s $lab/state/classes.json ]"
  quiet; within "first classes" "$CLASSES"
  mark
  curl -sX POST "${API%metrics}sync" >/dev/null; sleep 5
  within "no change" "$NOTHING"
  quiet; mark
  sed -i 's/uuid: s-6,/uuid: s-6, mtu: 1380,/' "$lab/fleet/jp1/sessions.yaml"
  curl -sX POST "${API%metrics}sync" >/dev/null
  until_true "the MTU of one session" "ip -o link show dev wg_6 | grep -q 'mtu 1380'"
  quiet; within "one change" "$CHANGE"
  mark
  ip -6 addr flush dev wg_5 scope link
  until_true "a removed address is there again" "ip -o -6 addr show dev wg_5 | grep -q fe80"
  quiet; within drift "$DRIFT"
  kill "$agent"; wait "$agent" || true
  before=()
  touch "$lab/marked"; marked_line=$(wc -l <"$lab/agent.log")
  run_agent
  until_true "all are active after a restart" "[ \"\$(metric 'sessions_total{status=\"active\"}')\" = $sessions ]"
  quiet; within restart "$RESTART"
  return $failed
}

run_agent() {
  PATH=$lab/programs:$PATH "$lab/moenet-agent" --config "$lab/config.yaml" run 2>>"$lab/agent.log" & agent=$!
}

# A git of the agent that notes each call.
count_gits() {
  mkdir "$lab/programs"; : >"$lab/git.calls"
  printf '#!/bin/sh\necho "$*" >>%s\nexec %s "$@"\n' "$lab/git.calls" "$(command -v git)" >"$lab/programs/git"
  chmod +x "$lab/programs/git"
}

# The first answers of peers set classes of links, with a few reloads of BIRD; then nothing is written.
rest() { # start
  local before after cpu spent
  while :; do
    alive; before=$(counted)
    cpu=($(cpu_ms "$agent") $(cpu_ms "$control_plane") $(cpu_ms "$bird"))
    sleep 60
    # Before the metrics are read: a thousand sessions have many.
    spent=($(($(cpu_ms "$agent") - cpu[0])) $(($(cpu_ms "$control_plane") - cpu[1])) $(($(cpu_ms "$bird") - cpu[2])))
    after=$(counted)
    [ "$before" != "$after" ] || break
    say "not at rest: $before-> $after"
    [ "$(since "$1")" -lt 1800 ] || { say "something is written at rest"; tail -n 5 "$lab/agent.log" >&2; return 1; }
  done
  row "at rest" "$(($(since "$1") - 60)) s" "from then on nothing was written: $after"
  row "  processor time a minute" "${spent[0]} ms" "control plane ${spent[1]}, bird ${spent[2]}"
  row "  memory" "$(memory_kb "$agent" VmRSS) kB" "at most $(memory_kb "$agent" VmHWM), control plane $(memory_kb "$control_plane" VmRSS)"
  row "  threads, open files" "$(memory_kb "$agent" Threads), $(files "$agent")" "log lines $(wc -l <"$lab/agent.log")"
}

soak() { # minutes
  local minute memory open
  for ((minute = 0; minute <= $1; minute++)); do
    alive
    [ $minute = 1 ] && { memory=$(memory_kb "$agent" VmRSS) open=$(files "$agent"); }
    say "minute $minute: $(memory_kb "$agent" VmRSS) kB, $(files "$agent") files, $(memory_kb "$agent" Threads) threads"
    [ $minute = "$1" ] || sleep 60
  done
  row "memory grew by" "$(($(memory_kb "$agent" VmRSS) - memory)) kB" "from minute 1 to minute $1; open files by $(($(files "$agent") - open))"
  row "  children left behind" "$(ps -o stat= --ppid "$agent" | grep -c Z || true)" "zombies"
}

measure() { # lab sessions soak: minutes, or "counts"
  lab=$1 sessions=$2
  local start bird_dir=$lab/bird fast=
  mkdir -p /run/bird "$bird_dir" "$lab/state"
  echo 'router id 192.0.2.1; protocol device {}' >"$bird_dir/bird.conf"
  bird -f -c "$bird_dir/bird.conf" -s /run/bird/bird.ctl 2>"$lab/bird.log" & bird=$!
  fleet "$lab/fleet" "$sessions"
  [ "$3" = 0 ] || [ "$3" = counts ] || fast=', syncInterval: 2, meshInterval: 2, birdConfigInterval: 2, heartbeatInterval: 2, metricInterval: 2'
  cat >"$lab/config.yaml" <<YAML
node: {name: jp1}
controlPlane: {url: "http://127.0.0.1:8080", token: lab-token$fast}
state: {directory: $lab/state}
bird: {directory: $bird_dir}
wireguard: {privateKeyPath: $lab/private.key}
YAML
  # With one probe of each link its class changes once.
  [ "$3" != counts ] || echo 'probe: {interval: 300}' >>"$lab/config.yaml"
  "$lab/moenet-agent" control-plane --fleet "$lab/fleet" --listen 127.0.0.1:8080 2>"$lab/control_plane.log" & control_plane=$!
  until curl -s http://127.0.0.1:8080/ >/dev/null; do kill -0 $control_plane; sleep 0.2; done
  count_gits
  start=$(date +%s)
  touch "$lab/marked"
  run_agent
  row sessions "$sessions"
  converge "$start"
  if [ "$3" = counts ]; then counts; else
    rest "$start"
    [ "$3" = 0 ] || soak "$3"
  fi
  kill "$agent" "$bird" "$control_plane"
  # The agent ends once its commits to the history have.
  wait "$agent" "$bird" "$control_plane" || true
}

guest() { # sessions
  modprobe wireguard; modprobe dummy
  row slowdown "$(awk -v guest="$(spin)" -v host="$HOST_SPIN" 'BEGIN { printf "%.1f", guest / host }')"
  measure /lab "$1" 0
}

here() { # agent sessions soak, in namespaces that go away with this process
  local source stand_in
  source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  lab=$(mktemp -d)
  mount -t tmpfs none /run && mkdir -p /run/wireguard && ip link set lo up
  # As systemd sets it on a router, so that probes need no raw sockets.
  echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range
  cp "$1" "$lab/moenet-agent"; mkfifo "$lab/links"
  printf '#!/bin/sh\necho "$1" >%s\n' "$lab/links" >"$lab/wireguard"; chmod +x "$lab/wireguard"
  export WG_USERSPACE_IMPLEMENTATION=$lab/wireguard
  "$source/../wireguard-stand-in" "$lab/links" & stand_in=$!
  trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$lab"' EXIT
  measure "$lab" "$2" "$3"
  kill $stand_in
}

soak=0
[ "${1:-}" = --soak ] && { soak=$2; shift 2; }
[ "${1:-}" = --counts ] && { soak=counts; shift; }
case ${1:-} in
  ''|-*) if [ "${1:-}" = --guest ] && [ -n "${2:-}" ]; then
      dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
      exec "$dir/../vm/vmrun" --mem 3072 --timeout 3000 --copy "$2:/lab/moenet-agent" --copy "$dir/scale.sh:/lab/scale.sh" \
        --env "HOST_SPIN=$(spin)" -- "bash /lab/scale.sh guest ${3:-100}"
    fi
    sed -n '2,20s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
  guest) guest "$2" ;;
  here) here "$2" "$3" "$4" ;;
  *) exec unshare --net --mount --propagation private "$0" here "$1" "${2:-1000}" "$soak" ;;
esac
