#!/bin/bash
# deps.sh: installs the Debian packages that are missing; silent and instant when none is. The tests also have
# check-jsonschema and schemathesis from PyPI.
#
#   tests/deps.sh demo     what examples/demo.sh needs
#   tests/deps.sh tests    what tests/run.sh needs beside that
#   tests/deps.sh vm       QEMU and what builds the guest's image
#   tests/deps.sh package  what builds packages and looks at them
#   tests/deps.sh static   what builds the static program
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEMO="make bird2|bird3 wireguard-go wireguard-tools iproute2 util-linux git jq curl"
TESTS="$DEMO frr gobgpd stayrtr prometheus chromium nftables postgresql python3 python3-venv procps iputils-ping strace faketime"
PACKAGE="binutils dpkg-dev rpm python3 mmdebstrap buildah"
CHECK_JSONSCHEMA=0.39.0
SCHEMATHESIS=4.32.5

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

missing() { # one word a package; a|b: any of them will do, the first is installed
  local word alternative found
  for word in $1; do
    found=
    for alternative in ${word//|/ }; do if installed "$alternative"; then found=yes; fi; done
    [ -n "$found" ] || echo "${word%%|*}"
  done
}

# The daemons belong to the tests: the packages must not start their own.
keep_services_down() {
  [ -e /usr/sbin/policy-rc.d ] && return
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

need() {
  local packages; packages=$(missing "$1" | tr '\n' ' ')
  [ -n "$packages" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages; as root: apt-get install --no-install-recommends $packages" >&2; exit 1
  fi
  echo "installing: $packages"
  export DEBIAN_FRONTEND=noninteractive
  keep_services_down
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends --no-remove $packages >/dev/null
}

# From PyPI, into a folder of the cache that is the tests' own.
python_tools() {
  local venv=${XDG_CACHE_HOME:-$HOME/.cache}/moenet-tests/venv
  "$venv/bin/check-jsonschema" --version 2>/dev/null | grep -q "$CHECK_JSONSCHEMA" &&
    "$venv/bin/schemathesis" --version 2>/dev/null | grep -q "$SCHEMATHESIS" && return
  echo "installing: check-jsonschema $CHECK_JSONSCHEMA, schemathesis $SCHEMATHESIS"
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "check-jsonschema==$CHECK_JSONSCHEMA" \
    "schemathesis==$SCHEMATHESIS"
}

rust_target() {
  [ -d "$(rustc --print target-libdir --target "$1")" ] || timeout 120 rustup target add "$1"
}

case ${1:-} in
  demo)  need "$DEMO" ;;
  tests) need "$TESTS"; python_tools ;;
  vm)    "$here/lab/vm/install-deps" ;;
  static) need "musl-tools binutils" && rust_target x86_64-unknown-linux-musl ;;
  package) need "$PACKAGE" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
