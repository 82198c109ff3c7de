#!/bin/bash
# image.sh: runs in a container of the image: a router without a Control Plane, whose node is configured in kernel and BIRD.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; cat /tmp/agent.log /tmp/bird.log >&2 || true; exit 1; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
ip link set lo up
moenet-agent version | grep '^BIRD ' >/dev/null || fail "the program does not run"
mkdir -p /run/bird /etc/moenet-agent /var/lib/moenet-agent
cat > /etc/moenet-agent/config.yaml <<END
node: {name: jp1, id: 1, asn: 4242420998, loopbackIpv4: 172.23.105.177, loopbackIpv6: 'fd48:4242:420::1'}
loopback: {interface: lo}
END
chmod 600 /etc/moenet-agent/config.yaml
install -d -m 700 /var/lib/moenet-agent/state
cat > /var/lib/moenet-agent/state/policy.yaml <<END
apiVersion: moenet.work/v1
kind: RoutingPolicy
metadata: {name: jp1}
spec: {prefixes: {ipv4: 172.23.105.176/28, ipv6: 'fd48:4242:420::/48'}}
END
# Without a link BIRD finds no router id by itself.
echo 'router id 192.0.2.1; protocol device {}' > /etc/bird/bird.conf
bird -f -c /etc/bird/bird.conf -s /run/bird/bird.ctl 2>/tmp/bird.log & bird=$!
moenet-agent run 2>/tmp/agent.log & agent=$!
ready() { moenet-agent describe node -o json | grep '"phase": *"Configured"' >/dev/null; }
for ((try = 0; try < 100; try++)); do ready 2>/dev/null && break; kill -0 $agent && kill -0 $bird || fail "a daemon ended"; sleep 0.3; done
ready || fail "the node is not configured"
ip -o addr show dev lo | grep 172.23.105.177 >/dev/null || fail "no loopback address"
birdc show protocols | grep '^moe_' >/dev/null || fail "BIRD has nothing of the agent"
kill $agent; wait $agent || fail "the agent ends with $?"
kill $bird
