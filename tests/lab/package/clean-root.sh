#!/bin/bash
# clean-root.sh: runs in a Debian without the agent, in which no systemd runs: files, modes, conffile, unit, removal.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
fail() { echo "FAILED: $*" >&2; exit 1; }
mode() { [ "$(stat -c '%a %U:%G' "$2")" = "$1" ] || fail "$2 is $(stat -c '%a %U:%G' "$2"), wanted $1"; }
config=/etc/moenet-agent/config.yaml
cd /lab
book() { ./book "$@" || fail "the book: $*"; }
# An operator answers that the changed configuration stays, and that the package is to be removed.
echo force-confold > /etc/dpkg/dpkg.cfg.d/lab
echo 'APT::Get::Assume-Yes "true";' > /etc/apt/apt.conf.d/lab

book package README.md 'moenet-agent'
book package docs/from-go-agent.md 'From the earlier agent in Go'
dpkg -P moenet-agent
book package docs/install.md 'Install'
mode "755 root:root" /usr/bin/moenet-agent
mode "600 root:root" $config
mode "644 root:root" /usr/lib/systemd/system/moenet-agent.service
mode "644 root:root" /usr/lib/systemd/system/moenet-control-plane.service
mode "644 root:root" /usr/share/moenet-agent/schemas/BgpSession.json
mode "644 root:root" /usr/share/moenet-agent/alerts.yaml
mode "644 root:root" /usr/share/moenet-agent/dashboards/router.json
mode "644 root:root" /usr/share/bash-completion/completions/moenet-agent
[ -e /usr/share/man/man5/moenet-agent-config.5.gz ] || [ -e /etc/dpkg/dpkg.cfg.d/docker ] || fail "no manual page"
moenet-agent version | grep '^BIRD ' >/dev/null || fail "the program does not run"
bash -n /usr/share/bash-completion/completions/moenet-agent

getent group moenet-agent >/dev/null || fail "no group moenet-agent, whose members may read without root"

# As installed the file sets nothing, and the program says what to do.
said=$(moenet-agent validate $config 2>&1) && fail "an empty configuration is valid"
grep -q node <<<"$said" || fail "the error does not name node: $said"

said=$(systemd-analyze verify --man=no moenet-agent.service moenet-control-plane.service 2>&1) || fail "the units: $said"
[ -z "$said" ] || fail "the units: $said"
# verify looks at the first command of a kind only.
sed -n 's/^Exec[A-Za-z]*=\([^ ]*\).*/\1/p' /usr/lib/systemd/system/moenet-*.service | while read -r program; do
  [ -x "$program" ] || fail "a unit needs $program, which a small Debian has not"
done
for unit in moenet-agent moenet-control-plane; do
  ! systemctl is-enabled --quiet $unit || fail "the first installation enables $unit"
done

# The operator's file stays, and dpkg does not ask about the default of a file that was not edited.
printf 'node: {name: jp1, id: 1, asn: 4242420998}\n' > $config
moenet-agent validate $config
systemctl enable --quiet moenet-agent moenet-control-plane
book package docs/install.md 'Upgrade'
grep -q 'name: jp1' $config || fail "the upgrade replaced the configuration"
mode "600 root:root" $config
mode "600 root:root" $config.dpkg-dist
for unit in moenet-agent moenet-control-plane; do
  systemctl is-enabled --quiet $unit || fail "the upgrade disables $unit"
done
book package docs/upgrade.md 'Upgrade'

mkdir -p /var/lib/moenet-agent/state && touch /var/lib/moenet-agent/state/kept
# Its second command finds the configuration after the removal.
book package docs/install.md 'Remove'
[ ! -e /usr/bin/moenet-agent ] || fail "removal keeps the program"
[ ! -e $config ] || fail "a purge keeps the configuration"
[ -e /var/lib/moenet-agent/state/kept ] || fail "a purge removes the state directory"
echo "clean root: passed"
