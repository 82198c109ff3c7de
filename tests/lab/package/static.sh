#!/bin/bash
# static.sh: the program of `packaging/build static` needs no library and no other file: it runs in an empty root. As root.
#
#   tests/lab/package/static.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
fail() { echo "FAILED: $*" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

ldd "$program" 2>&1 | grep -q 'statically linked' || fail "it needs libraries: $(ldd "$program")"
install -m 755 "$program" "$root/moenet-agent"
said=$(chroot "$root" /moenet-agent version) || fail "it does not run in an empty root"
grep -q '^target .*-linux-musl$' <<<"$said" || fail "another target: $said"
printf 'node: {name: jp1, id: 1, asn: 4242420998}\n' > "$root/config.yaml"
chroot "$root" /moenet-agent validate /config.yaml | grep -q valid || fail "it does not read a configuration"
printf 'node: {name: jp1}\n' > "$root/config.yaml"
if chroot "$root" /moenet-agent validate /config.yaml >/dev/null 2>&1; then fail "an incomplete configuration is valid"; fi
echo "the static program runs in an empty root"
