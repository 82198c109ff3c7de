#!/bin/bash
# vm-tests.sh: the core live tests in a guest with kernel WireGuard, a dummy loopback and Debian's BIRD 3.
#
#   tests/lab/vm-tests.sh AGENT LIVE-TESTS     the two programs, as cargo built them
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
agent=${1:?the agent} live=${2:?the live tests}
CORE="two_birds three_sessions_come_up_with killing_and_starting an_mtu_changes a_peers_key queued_delete foreign_interface_is_refused maintenance_drains a_session_over_gre a_session_over_ip6gre uplink_keeps tunnels_get_their_sysctls packets_pass our_table_is_back rename_keeps_the_tunnel refused_type_leaves type_change_creates"

"$here/vm/image-for-tests"
for name in $CORE; do # a name that matches nothing would pass without a test
  found=$("$live" --list "$name")
  grep -q ': test$' <<<"$found" || { echo "no live test is called $name" >&2; exit 1; }
done
command="modprobe -a wireguard dummy ip_gre ip6_gre && /lab/live --test-threads=1 $CORE"
for attempt in 1 2 3; do
  rc=0
  "$here/vm/vmrun" --mem 2048 --timeout 900 --copy "$agent:/lab/moenet-agent" --copy "$live:/lab/live" \
    --env MOENET_AGENT=/lab/moenet-agent --env MOENET_BIRD=system --env MOENET_VM=1 -- "$command" || rc=$?
  [ "$rc" = 125 ] || exit "$rc"
  echo "the guest did not come up (attempt $attempt of 3)" >&2
done
exit 125
