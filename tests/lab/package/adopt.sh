#!/bin/bash
# adopt.sh: runs in the guest after the installation, with the peer's end of the tunnel: a link of wg-quick's unit is adopted.
# `adopt` names the unit, disables it only with consent, never stops it, and an undo enables it again.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
# The watch of the book's `adopt` is shorter here.
export BOOK_HEAD='moenet-agent() { case "$*" in adopt) set -- "$@" --watch 2s;; esac; command moenet-agent "$@"; }'
book() { ./book "$@" || fail "the book: $*"; }
link=wg_4242421080
quick=wg-quick@$link.service
cp -p /etc/bird/bird.conf /lab/bird.before
# As every router has it.
forwarding=$(sysctl -n net.ipv6.conf.all.forwarding)
sysctl -qw net.ipv6.conf.all.forwarding=1
cat > /etc/wireguard/$link.conf <<END
[Interface]
PrivateKey = $(cat /lab/keys/router)
ListenPort = 21080
Address = fe80::998:1/64
MTU = 1420
Table = off
[Peer]
PublicKey = $(wg pubkey < /lab/keys/peer)
Endpoint = 192.0.2.2:51820
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 5
END
systemctl enable --now --quiet $quick
cat > /etc/bird/bird.conf <<END
log syslog all;
router id 172.23.105.177;
protocol device {}
protocol bgp old {
  local fe80::998:1 as 4242420998;
  neighbor fe80::1080%'$link' as 4242421080;
  connect delay time 1; connect retry time 2;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
END
birdc configure >/dev/null
end=$((SECONDS + 60))
until birdc show protocols old | grep Established >/dev/null; do
  [ $SECONDS -lt $end ] || fail "the session by hand never comes up: $(birdc show protocols all old)"
  sleep 0.3
done
same() { cat /sys/class/net/$link/ifindex; birdc -s /lab/peer.ctl show protocols jp1 | grep jp1; }
before=$(same)
unchanged() { [ "$(same)" = "$before" ] || fail "$1 changed link or session: $before / $(same)"; }
adopt() { moenet-agent adopt --watch 2s "$@" > /lab/adopt.out 2>&1 || fail "adopt $*: $(cat /lab/adopt.out)"; }
undo() { moenet-agent adopt --undo > /lab/adopt.out 2>&1 || fail "undo: $(cat /lab/adopt.out)"; }

book package docs/adopt.md 'Look'
book package docs/adopt.md 'Adopt'
systemctl is-enabled --quiet $quick || fail "adopt disables the unit without --yes"
unchanged "an adoption"
book package docs/adopt.md 'Undo'
adopt --yes
systemctl is-enabled --quiet $quick || fail "adopt --yes disables the unit while the agent's own is not enabled"
undo
systemctl enable --quiet moenet-agent.service
adopt --yes
! systemctl is-enabled --quiet $quick || fail "adopt --yes does not disable the unit: $(cat /lab/adopt.out)"
systemctl is-active --quiet $quick || fail "adopt --yes stops the unit"
unchanged "an adoption with --yes"
undo
systemctl is-enabled --quiet $quick || fail "the undo does not enable the unit again: $(cat /lab/adopt.out)"
systemctl is-active --quiet $quick || fail "the undo stops the unit"
unchanged "an undo"
systemctl disable --quiet moenet-agent.service

cp -p /lab/bird.before /etc/bird/bird.conf
birdc configure >/dev/null
systemctl disable --now --quiet $quick
rm /etc/wireguard/$link.conf
sysctl -qw net.ipv6.conf.all.forwarding="$forwarding"
