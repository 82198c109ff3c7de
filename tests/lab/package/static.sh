#!/bin/bash
# static.sh: the program of `packaging/build static` needs no library and no other file: it runs in an empty root. As root.
# One for another processor runs under emulation (qemu-user), outside of that root.
#
#   tests/lab/package/static.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
fail() { echo "FAILED: $*" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
printf 'node: {name: jp1, id: 1, asn: 4242420998}\n' > "$root/config.yaml"
printf 'node: {name: jp1}\n' > "$root/incomplete.yaml"

arch=$(readelf -h "$program" | sed -n 's/^ *Machine: *//p')
case $arch in
  *X86-64) arch=x86_64 ;;
  AArch64) arch=aarch64 ;;
  *) fail "$arch: only programs for x86_64 and aarch64" ;;
esac
if [ "$arch" = "$(uname -m)" ]; then
  install -m 755 "$program" "$root/moenet-agent"
  agent() { chroot "$root" /moenet-agent "$@"; }
  files='' where="in an empty root"
else
  agent() { "qemu-$arch" "$program" "$@"; }
  files=$root where="under qemu-$arch"
fi

readelf -l "$program" | grep -q INTERP && fail "it needs libraries"
said=$(agent version) || fail "it does not run $where"
grep -q "^target *$arch-.*-linux-musl$" <<<"$said" || fail "another target: $said"
agent validate "$files/config.yaml" | grep -q valid || fail "it does not read a configuration"
if agent validate "$files/incomplete.yaml" >/dev/null 2>&1; then fail "an incomplete configuration is valid"; fi
echo "the static program for $arch runs $where"
