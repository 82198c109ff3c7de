#!/bin/bash
# check-apis.sh: schemathesis from PyPI, a judge that is not of our making, generates requests from the descriptions of
# both APIs, valid and invalid ones, and holds the answers to them. The servers are the program itself: an agent with
# BIRD, and the embedded Control Plane over the demo's fleet, in a network namespace of their own. Needs root.
#
#   tests/check-apis.sh AGENT [local|control-plane]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
agent=$(realpath "$1") only=${2:-}
tool=${XDG_CACHE_HOME:-$HOME/.cache}/moenet-tests/venv/bin/schemathesis
[ -x "$tool" ] || { echo "!!! no schemathesis: the APIs are NOT checked (tests/deps.sh tests installs it)" >&2; exit 1; }

if [ -z "${CHECK_APIS_INSIDE:-}" ]; then
  export CHECK_APIS_INSIDE=1
  exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/check-apis.XXXXXX")
finish() { # the namespace's other processes end with this one
  local rc=$?
  trap - EXIT
  [ "$rc" = 0 ] || tail -n 20 "$work"/*.log >&2
  kill $(jobs -p) 2>/dev/null || true
  wait
  rm -rf "$work"
  exit "$rc"
}
trap finish EXIT
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard && mount -t sysfs sysfs /sys
ip link set lo up

wait_for() { # seconds command...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}

umask 077
mkdir -p "$work/fleet/jp1" "$work/bird"
wg genkey > "$work/private.key"
key=$(wg genkey | wg pubkey)
put() { sed -e "s|FOLDER|$work|g; s|LOOPBACK|lo|g; s|NEIGHBOUR_KEY|$key|g" "$1" > "$2"; }
for f in examples/demo/fleet/jp1/*.yaml; do put "$f" "$work/fleet/jp1/${f##*/}"; done
put examples/demo/config.yaml "$work/config.yaml"
# The uuid that the description has as an example.
sed -i 's/uuid: .*/uuid: abc-123/' "$work/fleet/jp1/sessions.yaml"
# The token of the router is also that of an operator who may read, and of an owner of sessions on another router.
mkdir "$work/fleet/routers" "$work/fleet/owners"
hash=sha256:$(printf demo-token | sha256sum | cut -d' ' -f1)
echo "{asn: 4242420998, prefixes: {ipv6: 'fd48:4da8:420::/48'}, owners: {sessions: 1000, sessionsPerRouter: 1000}}" > "$work/fleet/network.yaml"
echo "{id: 2, tokenHashes: ['$hash']}" > "$work/fleet/routers/hk1.yaml"
echo "{tokenHashes: ['$hash']}" > "$work/fleet/owners/4242421090.yaml"
printf demo-token > "$work/read-token"
"$agent" control-plane --fleet "$work/fleet" --read-token-file "$work/read-token" --listen 127.0.0.1:8080 > "$work/control-plane.log" 2>&1 &
wait_for 60 curl -s http://127.0.0.1:8080/
"$agent" --config "$work/config.yaml" run > "$work/agent.log" 2>&1 &
wait_for 60 test -s "$work/bird/bird.conf"
bird -c "$work/bird/bird.conf" -s "$work/bird.ctl" -P "$work/bird.pid"
wait_for 60 curl -sf http://127.0.0.1:24368/readyz

# The Control Plane's paths name a router; only this one exists. A long poll waits on purpose; here it answers at once.
printf '[parameters]\nrouter = "jp1"\n"query.wait" = 0\n' > "$work/schemathesis.toml"
# An owner may not have every session that a description can say.
cat >> "$work/schemathesis.toml" <<'EOF'

[[operations]]
include-path = "/v1/sessions"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "5xx"]

[[operations]]
include-path = "/v1/sessions/{router}/{session}"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "5xx"]
EOF

check() { # name description url argument…
  local name=$1 description=$2 url=$3; shift 3
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  echo "--- $name"
  cmp -s <(curl -sf "$url/openapi.json" | jq -S .) <(jq -S . "$description") || {
    echo "$url/openapi.json is not $description" >&2; return 1; }
  (cd "$work" && "$tool" --config-file "$work/schemathesis.toml" --no-color run "$OLDPWD/$description" --url "$url" \
    --checks all --max-examples "${EXAMPLES:-30}" --seed "${SEED:-1}" --continue-on-failure "$@")
}

check local schemas/openapi-local.json http://127.0.0.1:24368
check control-plane schemas/openapi-control-plane.json http://127.0.0.1:8080 -H 'Authorization: Bearer demo-token'
