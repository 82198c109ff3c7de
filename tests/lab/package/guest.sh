#!/bin/bash
# guest.sh: runs in a guest with systemd, kernel WireGuard and Debian's BIRD: install, adopt, start, Established, reload,
# a hang, upgrade, removal; beside it the Control Plane. Link and BGP session must be the same all the time. Emulated, dpkg
# takes a third of apt's time; the book's commands of apt run in the clean root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
fail() { echo "FAILED: $*" >&2; journalctl -n 40 --no-pager -u moenet-agent >&2 || true; exit 1; }
wait_for() { # seconds command...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || fail "never true: $*"; sleep 0.3; done
}
established() { birdc show protocols all wg_4242421080 2>/dev/null | grep Established >/dev/null || birdc show protocols | grep Established >/dev/null; }
unit() { systemctl show -P "$1" moenet-agent; }
cd /lab
book() { ./book "$@" || fail "the book: $*"; }
step() { printf '  guest %3d s  %s\n' $SECONDS "$*"; }
peer() { ip netns exec peer "$@"; }

modprobe -a wireguard dummy veth
umask 077
ip netns add peer
ip link add uplink type veth peer name uplink netns peer
ip addr add 192.0.2.1/24 dev uplink; ip link set uplink up
peer sh -c 'ip addr add 192.0.2.2/24 dev uplink; ip link set uplink up; ip link set lo up'
# The neighbour of docs/first-router.md, which has its public key.
mkdir -p /lab/keys; wg genkey > /lab/keys/router; echo kOV0DJH2tk1v1R/mTICgsy6rB2uAPKHknab4s3mFsUY= > /lab/keys/peer
peer sh -c 'ip link add wg0 type wireguard
  wg set wg0 private-key /lab/keys/peer listen-port 51820 peer "$(wg pubkey < /lab/keys/router)" \
    endpoint 192.0.2.1:21080 allowed-ips 0.0.0.0/0,::/0
  ip link set wg0 addrgenmode none mtu 1420; ip addr add fe80::1080/64 dev wg0; ip link set wg0 up'
peer bird -c /lab/neighbour.conf -s /lab/peer.ctl -P /lab/peer.pid
install -D -m 600 /lab/keys/router /etc/wireguard/private.key
systemctl start bird

step "install"
dpkg -i /lab/one.deb
[ "$(unit ActiveState) $(unit UnitFileState)" = "inactive disabled" ] || fail "the first installation starts or enables the unit"
cp -p /etc/moenet-agent/config.yaml /lab/default
cat > /etc/moenet-agent/config.yaml <<END
node: {name: jp1, id: 1, asn: 4242420998, loopbackIpv4: 172.23.105.177, loopbackIpv6: 'fd48:4242:420::1'}
END
step "the unit of the Control Plane"
bash /lab/control-plane.sh serve
step "adopt names the unit of wg-quick, and disables it only with consent"
bash /lab/adopt.sh
step "networkd and the agent configure the same link"
bash /lab/networkd.sh

# The router of docs/first-router.md, from nothing.
step "init"
rm /etc/wireguard/private.key
cp -p /lab/default /etc/moenet-agent/config.yaml
book package docs/first-router.md '1. Configuration'
book package docs/install.md 'Configure'

step "start: ready when systemctl returns"
mkdir -p /etc/systemd/system/moenet-agent.service.d
printf '[Service]\nWatchdogSec=20s\n' > /etc/systemd/system/moenet-agent.service.d/short.conf
systemctl daemon-reload
book package docs/first-router.md '2. Start'
[ "$(unit ActiveState)" = active ] || fail "not active"
moenet-agent status >/dev/null || fail "the local API does not answer after the start"
step "the first session"
book package docs/first-router.md '3. Policy'
book package docs/first-router.md '4. The session'
# The neighbour has got our side.
peer sh -c 'wg set wg0 peer "$(wg pubkey < /lab/keys/router)" remove \
  peer "$(wg pubkey < /etc/wireguard/private.key)" endpoint 192.0.2.1:21080 allowed-ips 0.0.0.0/0,::/0'
book package docs/first-router.md '5. Established'
wait_for 60 sh -c 'birdc -s /lab/peer.ctl show protocols jp1 | grep Established'
# What must stay: the link, and the session of the neighbour with the second since it is up: BIRD computes the time of each
# answer from two clocks, so its milliseconds differ by one.
same() { cat /sys/class/net/wg_4242421080/ifindex; birdc -s /lab/peer.ctl show protocols jp1 | sed -n 's/\.[0-9]* / /; /^jp1/p'; }
before=$(same)
unchanged() { [ "$(same)" = "$before" ] || fail "$1 changed link or session: $before / $(same)"; }
mtu() { [ "$(cat /sys/class/net/wg_4242421080/mtu)" = "$1" ]; }
book package docs/first-router.md '6. A change'
wait_for 60 mtu 1400
book package docs/first-router.md '7. And back'
wait_for 60 mtu 1420
unchanged "a change of the MTU"
wait_for 60 sh -c 'systemctl show -P StatusText moenet-agent | grep "1 of 1 sessions Established"'
# Users without root: out of the group, and in it.
useradd alice
said=$(runuser -u alice -- moenet-agent get 2>&1) && fail "a user out of the group reads: $said"
book package docs/install.md 'Read without root'
book package README.md 'Running it'
book package docs/install.md 'Start'
book package docs/observe.md 'Log'

step "reload: a broken file fails it and changes nothing"
cp -p /etc/moenet-agent/config.yaml /lab/good
echo 'nmae: x' >> /etc/moenet-agent/config.yaml
! systemctl reload moenet-agent 2>/dev/null || fail "a reload with a broken file succeeds"
cp -p /lab/good /etc/moenet-agent/config.yaml
systemctl reload moenet-agent || fail "a reload fails"
[ "$(unit ActiveState)" = active ] || wait_for 10 sh -c '[ "$(systemctl show -P ActiveState moenet-agent)" = active ]'
unchanged "a reload"

step "upgrade of the running agent"
old=$(unit MainPID)
dpkg --force-confold -i /lab/two.deb
[ "$(unit MainPID)" != "$old" ] && [ "$(unit ActiveState)" = active ] || fail "the upgrade does not restart the agent"
grep -q 'name: "jp1"' /etc/moenet-agent/config.yaml || fail "the upgrade replaced the configuration"
wait_for 60 sh -c 'systemctl show -P StatusText moenet-agent | grep "1 of 1 sessions Established"'
unchanged "an upgrade"
bash /lab/control-plane.sh upgraded

step "an agent that hangs is restarted"
old=$(unit MainPID)
kill -STOP "$old"
wait_for 120 sh -c "[ \"\$(systemctl show -P MainPID moenet-agent)\" != $old ] && systemctl -q is-active moenet-agent"
# The watchdog alone does that: a stopped process ends by nothing else.
[ "$(unit NRestarts)" = 1 ] || fail "restarted $(unit NRestarts) times"
unchanged "the watchdog"

step "removal"
dpkg -r moenet-agent
[ ! -e /usr/bin/moenet-agent ] && [ -z "$(pgrep -x moenet-agent)" ] || fail "the removal keeps the program"
unchanged "a removal"
bash /lab/control-plane.sh removed
dpkg -P moenet-agent | tee /lab/purge.out
bash /lab/control-plane.sh purged
unchanged "a purge"
established || fail "the router's BIRD has no session after the purge"
step "passed"
