#!/bin/bash
# run.sh: cuts the power of a router at random moments, and looks at what the next boot finds.
#
#   tests/lab/powercut/run.sh AGENT [CUTS]
#   tests/lab/powercut/run.sh --control AGENT [CUTS]     succeeds when a loss is found, with an agent (a debug build) that
#                                                        flushes nothing: the control of the test itself
#
# The router is the guest of tests/lab/vm, its state is on a disk of its own. While it runs, operators change overrides
# and the maintenance mode, the Control Plane changes sessions, and each change is noted once it is acknowledged. QEMU is
# killed; what the guest had not written to its disk is lost (what it had written without a flush is not: the host keeps
# it). Nothing but the agent flushes that disk. After each boot everything acknowledged must be there, and kernel and BIRD
# must become what the documents say. SEED=N repeats the moments of a run. It takes about 3 minutes for 4 cuts, the default.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
control=
[ "${1:-}" = --control ] && { control=1; shift; }
agent=${1:?the agent} cuts=${2:-4}
RANDOM=${SEED:-$$}
echo "# seed ${SEED:-$$}" >&2
"$here/../vm/image-for-tests"
work=$(mktemp -d)
vmrun=
trap '[ -z "$vmrun" ] || kill "$vmrun" 2>/dev/null || true; rm -rf "$work"' EXIT
truncate -s 256M "$work/disk"
mkfs.ext4 -q "$work/disk"
: >"$work/acknowledged"

boot() { # what the guest does: work, or verify
  : >"$work/said"
  "$here/../vm/vmrun" --mem 1536 --timeout 300 --boot-tries 1 --disk "$work/disk" \
    ${control:+--env MOENET_AGENT_FLUSH_NOTHING=1} --copy "$agent:/lab/moenet-agent" --copy "$here/guest.sh:/lab/guest.sh" --copy "$work/acknowledged:/lab/acknowledged" \
    -- "bash /lab/guest.sh $1" >"$work/said" 2>"$work/errors" &
  vmrun=$!
}

changes() { grep -cE '^(wg_[0-9]|drained) ' "$work/acknowledged" || true; }

failed() {
  echo "$1" >&2
  # What a loss is, guest.sh says; a guest that did not come up is not a loss.
  [ -z "$control" ] || ! grep -E '^FAILED: ' "$work/said" "$work/errors" || { echo "the loss was found, as it must be"; exit 0; }
  cat "$work/said" "$work/errors" >&2
  exit 1
}

# Waits until the guest has found everything and two changes were acknowledged.
works() {
  local waited=0
  until [ "$(grep -cE '^acknowledged (wg_|drained)' "$work/said")" -ge 2 ]; do
    kill -0 "$vmrun" 2>/dev/null || return 1
    sleep 0.2; waited=$((waited + 1))
    [ "$waited" -lt 1500 ] || return 1
  done
}

# A guest that does not come up says nothing about the agent: it is booted again.
booted() {
  local attempt
  for attempt in 1 2 3; do
    boot work
    works && return
    wait "$vmrun" && failed "the guest ended before its time"
    grep -q '^begun$' "$work/said" && failed "boot $1: not everything is there"
    echo "# the guest did not come up (attempt $attempt of 3)" >&2
  done
  failed "the guest did not come up"
}

for ((cut = 1; cut <= cuts; cut++)); do
  booted "$cut"
  ms=$((RANDOM % 4000))
  sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
  # The child alone: vmrun would end it the same way, and later.
  kill -KILL "$(pgrep -P "$vmrun" -f qemu)"
  wait "$vmrun" || true
  sed -n 's/^acknowledged //p; s/^\(tried .*\)/\1/p' "$work/said" >>"$work/acknowledged"
  echo "# cut $cut after $ms ms: $(changes) changes acknowledged" >&2
done
[ "$(changes)" -gt "$cuts" ] || failed "too few changes were acknowledged to prove anything"
for attempt in 1 2 3; do
  boot verify
  rc=0
  wait "$vmrun" || rc=$?
  [ "$rc" = 125 ] && ! grep -q '^begun$' "$work/said" || break
done
[ "$rc" = 0 ] || failed "the last boot: not everything is there"
[ -z "$control" ] || { echo "no loss was found although nothing was flushed: this test proves nothing" >&2; exit 1; }
cat "$work/said"
