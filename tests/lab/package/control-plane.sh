#!/bin/bash
# control-plane.sh PHASE: runs in the guest, called by guest.sh: the unit of the Control Plane. Its user exists while it runs:
# root's verbs and the server must read and write the files of each other.
#
#   serve                        after the installation: units, fleet, start, posts, TLS, Git
#   upgraded, removed, purged    what has become of it then
set -euo pipefail
fail() { echo "FAILED: $*" >&2; journalctl -n 30 --no-pager -u moenet-control-plane >&2 || true; exit 1; }
book() { ./book "$@" || fail "the book: $*"; }
unit() { systemctl show -P "$1" moenet-control-plane; }
fleet=/var/lib/moenet-control-plane
admin() { curl -sf --unix-socket /run/moenet-control-plane/admin.sock "http://fleet$1" "${@:2}"; }
ready() { curl -sf --retry 60 --retry-all-errors --retry-delay 1 "$@" >/dev/null || fail "it does not get ready: $*"; }
# The unit starts again with these lines of /etc/default.
restarted() { printf '%s\n' "$@" > /etc/default/moenet-control-plane; systemctl restart moenet-control-plane; }

serve() {
  [ "$(unit ActiveState) $(unit UnitFileState)" = "inactive disabled" ] || fail "the first installation starts or enables the unit"
  said=$(systemd-analyze verify --man=no moenet-agent.service moenet-control-plane.service 2>&1) && [ -z "$said" ] || fail "the units: $said"
  book package docs/security.md 'Privileges'
  book package docs/fleet.md 'Operate the Control Plane'
  # The range of dynamic users.
  user=$(stat -c %u "/proc/$(unit MainPID)")
  [ "$user" -ge 61184 ] && [ "$user" -le 65519 ] || fail "it runs as $user"
  useradd stranger
  ! runuser -u stranger -- ls $fleet/ >/dev/null 2>&1 || fail "other users read the fleet"

  # Files by root, after the start: the server reads them, and changes the session in the folder that root's verb has made.
  token=$(moenet-agent fleet add router hk1 --fleet $fleet -o json | jq -r .token)
  moenet-agent fleet add session hk1 alice --asn 4242421080 --link-local fe80::1080 --public-key "$(wg pubkey < /lab/keys/peer)" \
    --review --fleet $fleet >/dev/null
  until admin /v1/routers/hk1 | jq -e '.sessions | length == 1' >/dev/null; do [ $SECONDS -lt 60 ] || fail "the server does not see the session: $(admin /v1/routers)"; sleep 0.3; done
  admin /v1/routers/hk1/sessions -d '{"session": "alice", "change": "accept"}' | grep -F sessions/hk1/alice.yaml >/dev/null || fail "the server cannot change a session of root's"
  # Posts by the server: root reads them.
  curl -sf -H "Authorization: Bearer $token" http://127.0.0.1:8080/agent/hk1/heartbeat -d '{"version": "1.2.3", "uptime": 60}' >/dev/null || fail "no heartbeat"
  moenet-agent fleet get --fleet $fleet | grep -E '^hk1 .*1\.2\.3' >/dev/null || fail "root does not see the heartbeat: $(moenet-agent fleet get --fleet $fleet)"
  moenet-agent fleet disable hk1/alice --fleet $fleet >/dev/null || fail "root cannot change the session again"

  # Files that only root reads, as credentials.
  install -d -m 700 /etc/ssl/fleet
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -days 2 -keyout /etc/ssl/fleet/key.pem -out /etc/ssl/fleet/fullchain.pem 2>/dev/null
  mkdir -p /etc/systemd/system/moenet-control-plane.service.d
  printf '[Service]\nLoadCredential=certificate:/etc/ssl/fleet/fullchain.pem\nLoadCredential=key:/etc/ssl/fleet/key.pem\n' \
    > /etc/systemd/system/moenet-control-plane.service.d/tls.conf
  systemctl daemon-reload
  at=/run/credentials/moenet-control-plane.service
  restarted "OPTIONS=\"--listen [::]:8443 --tls-cert $at/certificate --tls-key $at/key\""
  ready --cacert /etc/ssl/fleet/fullchain.pem https://localhost:8443/readyz

  # A bare repository in the directory of the unit.
  git init -q -b main /lab/clone
  cp -r $fleet/network.yaml $fleet/routers $fleet/sessions /lab/clone/
  git -C /lab/clone add . && git -C /lab/clone -c user.name=a -c user.email=a@example.net commit -qm begin
  git clone -q --bare /lab/clone $fleet/fleet.git
  chown -R --reference=$fleet/ $fleet/fleet.git
  restarted 'FLEET="--fleet /var/lib/moenet-control-plane/fleet.git --git-ref main"'
  ready http://127.0.0.1:8080/readyz
  admin /v1/git | grep "$(git -C /lab/clone rev-parse HEAD)" >/dev/null || fail "not the commit: $(admin /v1/git)"
  rm -r $fleet/fleet.git /etc/default/moenet-control-plane /etc/systemd/system/moenet-control-plane.service.d
  systemctl daemon-reload
  systemctl restart moenet-control-plane
  ready http://127.0.0.1:8080/readyz
  unit MainPID > /lab/control-plane.pid
}

upgraded() {
  [ "$(unit MainPID)" != "$(cat /lab/control-plane.pid)" ] && [ "$(unit ActiveState)" = active ] || fail "the upgrade does not restart it"
  ready http://127.0.0.1:8080/readyz
  admin /v1/routers/hk1 | grep '"1.2.3"' >/dev/null || fail "the upgrade loses a heartbeat: $(admin /v1/routers/hk1)"
}

removed() {
  [ "$(systemctl is-active moenet-control-plane)" != active ] || fail "the removal does not stop it"
}

purged() {
  grep -F "the fleet in $fleet stays" /lab/purge.out >/dev/null || fail "the purge does not name what stays: $(cat /lab/purge.out)"
  [ -e $fleet/network.yaml ] && [ -e $fleet/sessions/hk1/alice.yaml ] || fail "the purge removes the fleet"
}

cd /lab
"$1"
