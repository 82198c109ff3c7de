#!/bin/bash
# networkd.sh: runs in the guest after the installation: systemd-networkd has built the link, and goes on running beside the
# agent. Without a D-Bus daemon, systemctl sends the reload of `networkctl reload`.
set -euo pipefail
. /lab/by-hand.sh
folder=/etc/systemd/network
mkdir -p $folder
install -m 640 -g systemd-network /lab/keys/router $folder/private.key
cat > $folder/30-$link.netdev <<END
[NetDev]
Name=$link
Kind=wireguard
MTUBytes=1420
[WireGuard]
PrivateKeyFile=$folder/private.key
ListenPort=21080
[WireGuardPeer]
PublicKey=$(wg pubkey < /lab/keys/peer)
Endpoint=192.0.2.2:51820
AllowedIPs=0.0.0.0/0
AllowedIPs=::/0
PersistentKeepalive=5
END
cat > $folder/30-$link.network <<END
[Match]
Name=$link
[Network]
KeepConfiguration=yes
LinkLocalAddressing=no
IPv6AcceptRA=no
[Address]
Address=fe80::998:1/64
[Route]
Destination=172.20.200.0/24
Scope=link
END
chmod 644 $folder/*.net*
systemctl start systemd-networkd
bird_by_hand
# All of the link that networkd or the agent set.
kernel() {
  cat /sys/class/net/$link/{ifindex,mtu}; ip -o addr show dev $link | sed 's/ *valid_lft.*//' | cut -d' ' -f2-
  ip route show dev $link; ip -6 route show dev $link; wg show $link dump | cut -f1-4
}
now=$(kernel)
kept() { [ "$(kernel)" = "$now" ] || fail "$1 changed the link: $(diff <(echo "$now") <(kernel))"; unchanged "$1"; }
# Nothing tells when networkd has finished.
networkd() { systemctl "$1" systemd-networkd; sleep 2; kept "a $1 of networkd $2"; }

adopt
grep "$folder/30-$link.network:1: $link: systemd-networkd configures it too" /lab/adopt.out >/dev/null || fail "adopt does not name networkd: $(cat /lab/adopt.out)"
kept "an adoption"
networkd reload "after the adoption"
networkd restart "after the adoption"
# As BIRD and a changed document have them; the agent removes an address that no document has.
address=fd48:4242:420::80/128 route=172.20.201.0/24
ip addr add $address dev $link nodad
ip route add $route dev $link proto bird
now=$(kernel)
networkd restart "beside further addresses and routes"
ip addr del $address dev $link
ip route del $route dev $link
now=$(kernel)
systemctl start moenet-agent
networkd restart "beside the agent"
book package docs/adopt.md 'Files of systemd-networkd'
kept "the removal of the files"
networkd reload "without the files"
networkd restart "without the files"
systemctl stop moenet-agent
undo
unchanged "an undo"

systemctl stop systemd-networkd.socket systemd-networkd.service
ip link del $link
rm -r $folder/private.key /root/30-$link.net*
bird_as_installed
