#!/bin/bash
# adopt.sh: runs in the guest after the installation: a link of wg-quick's unit is adopted. `adopt` names the unit, disables it
# only with consent, never stops it, and an undo enables it again.
set -euo pipefail
. /lab/by-hand.sh
quick=wg-quick@$link.service
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
bird_by_hand

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

bird_as_installed
systemctl disable --now --quiet $quick
rm /etc/wireguard/$link.conf
