#!/bin/bash
# by-hand.sh: sourced by adopt.sh and networkd.sh, which run in the guest after the installation, with the peer's end of the
# tunnel: a router whose session and link something else than the agent has built.
fail() { echo "FAILED: $*" >&2; exit 1; }
# The watch of the book's `adopt` is shorter here.
export BOOK_HEAD='moenet-agent() { case "$*" in adopt) set -- "$@" --watch 2s;; esac; command moenet-agent "$@"; }'
book() { ./book "$@" || fail "the book: $*"; }
link=wg_4242421080
cp -p /etc/bird/bird.conf /lab/bird.before
# As every router has it.
forwarding=$(sysctl -n net.ipv6.conf.all.forwarding)
sysctl -qw net.ipv6.conf.all.forwarding=1

# The session over the link, which is up by then.
bird_by_hand() {
  local end=$((SECONDS + 60))
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
  until birdc show protocols old | grep Established >/dev/null; do
    [ $SECONDS -lt $end ] || fail "the session by hand never comes up: $(birdc show protocols all old)"
    sleep 0.3
  done
  before=$(same)
}
bird_as_installed() { cp -p /lab/bird.before /etc/bird/bird.conf; birdc configure >/dev/null; sysctl -qw net.ipv6.conf.all.forwarding="$forwarding"; }

# What must stay: the link, and the session of the neighbour with the second since it is up: BIRD computes the time of each
# answer from two clocks, so its milliseconds differ by one.
same() { cat /sys/class/net/$link/ifindex; birdc -s /lab/peer.ctl show protocols jp1 | sed -n 's/\.[0-9]* / /; /^jp1/p'; }
unchanged() { [ "$(same)" = "$before" ] || fail "$1 changed link or session: $before / $(same)"; }
adopt() { moenet-agent adopt --watch 2s "$@" > /lab/adopt.out 2>&1 || fail "adopt $*: $(cat /lab/adopt.out)"; }
undo() { moenet-agent adopt --undo > /lab/adopt.out 2>&1 || fail "undo: $(cat /lab/adopt.out)"; }
