#!/bin/bash
# run.sh: builds the packages from a program and looks at them where they will be: the lists of both, the .deb in a
# clean Debian 12 (no systemd runs there), in a container of the OCI image, and in the guest with systemd and kernel
# WireGuard. What tests/deps.sh package installs must be there; without the two builders of packages, which cargo fetches,
# nothing is checked, and that is printed.
#
# Their commands are those of the book, which the example `book` runs and compares.
#
#   tests/lab/package/run.sh AGENT
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache} suite=bookworm
root=$cache/moenet-tests/root-$suite.tar
export MOENET_AGENT=${1:?the program}
work=$(mktemp -d)
# The log ends with what was not checked.
unchecked=("the bound of 18 MB: these packages hold a program of the tests; \`packaging/build deb\` holds the published one to it"
  "installing the .rpm")
trap 'rm -rf "$work"; for it in "${unchecked[@]}"; do echo "!!! NOT checked: $it" >&2; done' EXIT
begun=$SECONDS
step() { printf '%3d s  %s\n' $((SECONDS - begun)) "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
program=${CARGO_TARGET_DIR:-$PWD/target}/debug/examples/book
book() { "$program" "$@" || fail "the book: $*"; }

build() {
  rm -f target/package/*.deb target/package/*.rpm
  book build docs/install.md 'Build the package'
  packaging/build rpm
  cp target/package/moenet-agent_*-1_*.deb "$work/one.deb"
  # Not compressed: emulated processors would take a minute to unpack each. The second one has the next revision and
  # another default of the configuration.
  dpkg-deb -R "$work/one.deb" "$work/tree"
  dpkg-deb --root-owner-group -Znone -b "$work/tree" "$work/plain.deb" >/dev/null
  sed -i 's/^\(Version: .*-\)1$/\12/' "$work/tree/DEBIAN/control"
  echo "# a new default" >> "$work/tree/etc/moenet-agent/config.yaml"
  dpkg-deb --root-owner-group -Znone -b "$work/tree" "$work/two.deb" >/dev/null
  rm -rf "$work/tree"
}

# The names of files of a package, without those whose place depends on the kind of package.
listed() { grep -Ev '/zsh/|/(copyright|LICENSE.*)$' | sed 's/\.gz$//' | sort; }

rpm_files() {
  local files line
  files=$(rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]' target/package/*.rpm)
  # c, n: a configuration file, which an upgrade does not replace.
  for line in '-rwxr-xr-x root /usr/bin/moenet-agent ' '-rw------- root /etc/moenet-agent/config.yaml cn' \
    '-rw-r--r-- root /usr/lib/systemd/system/moenet-agent.service ' '-rw-r--r-- root /usr/lib/systemd/system/moenet-control-plane.service ' '-rw-r--r-- root /usr/share/man/man1/moenet-agent.1 ' \
    '-rw-r--r-- root /usr/share/moenet-agent/schemas/Config.json ' '-rw-r--r-- root /usr/share/moenet-agent/alerts.yaml '; do
    grep -xF -- "$line" <<<"$files" >/dev/null || fail "the .rpm has no line '$line':"$'\n'"$files"
  done
  diff <(dpkg-deb -c "$work/one.deb" | awk '$1 !~ /^d/ { print substr($6, 2) }' | listed) \
    <(awk '{ print $3 }' <<<"$files" | listed) || fail "the packages differ"
}

# Made once, and kept.
have_root() {
  [ ! -e "$root" ] || return 0
  . tests/lab/suites.sh
  mkdir -p "${root%/*}"
  mmdebstrap --quiet --mode=root --variant=minbase --include=systemd --keyring="$LAB_KEYRING" \
    --aptopt='Apt::Install-Recommends "false"' "$suite" "$root.new.tar" "$(lab_mirror)" && mv "$root.new.tar" "$root"
}

clean_root() {
  mkdir "$work/root"
  tar -xf "$root" -C "$work/root" --exclude='./dev/*'
  mkdir -p "$work/root/lab" "$work/root/dev"
  : > "$work/root/dev/null"
  # Under the names that the book has.
  cp "$work/one.deb" "$work/root/lab/$(basename target/package/moenet-agent_*-1_*.deb)"
  cp "$work/two.deb" "$work/root/lab/$(basename target/package/moenet-agent_*-1_*.deb | sed s/-1_/-2_/)"
  cp -r "$program" "$here/clean-root.sh" docs README.md "$work/root/lab/"
  install -D tests/cases/go-agent-router/config.json "$work/root/opt/moenet-agent/config.json"
  unshare --net chroot "$work/root" /bin/bash /lab/clean-root.sh
}

# The clock of an emulated processor may run fast where the machine is busy while it boots: clocksource=hpet.
guest() {
  local attempt rc
  tests/lab/vm/image-for-tests
  for attempt in 1 2 3; do
    rc=0
    tests/lab/vm/vmrun --systemd --mem 1536 --timeout 1200 --boot-timeout 120 --append clocksource=hpet \
      --copy "$work/plain.deb:/lab/one.deb" --copy "$work/two.deb:/lab/two.deb" --copy "$here/guest.sh:/lab/guest.sh" \
      --copy "$here/adopt.sh:/lab/adopt.sh" --copy "$here/control-plane.sh:/lab/control-plane.sh" \
      --copy "$here/by-hand.sh:/lab/by-hand.sh" --copy "$here/networkd.sh:/lab/networkd.sh" --copy "$program:/lab/book" --copy docs:/lab/docs --copy README.md:/lab/README.md \
      --copy examples/demo/neighbour.conf:/lab/neighbour.conf -- 'bash /lab/guest.sh' || rc=$?
    [ "$rc" = 125 ] || break
    echo "the guest did not come up (attempt $attempt of 3)" >&2
  done
  [ "$rc" = 0 ] || fail "in the guest, code $rc"
}

# The container shares a network namespace of its own with nothing.
image() {
  local buildah=(buildah --storage-driver vfs --root "$work/storage" --runroot "$work/runroot") container
  packaging/build oci
  container=$("${buildah[@]}" from "oci-archive:$PWD/target/package/moenet-agent.oci.tar")
  unshare --net "${buildah[@]}" run --isolation chroot --cap-add CAP_NET_ADMIN --cap-add CAP_NET_RAW --volume "$here/image.sh:/lab/image.sh:ro" "$container" -- bash /lab/image.sh
  "${buildah[@]}" rm "$container" >/dev/null
}

step "the tools"
tests/deps.sh package && tests/deps.sh vm
packaging/build tools || { unchecked+=("packages: cargo-deb and cargo-generate-rpm cannot be built here"); exit 0; }
step "build: two .deb, the second with another default configuration, and an .rpm"
build
step "the .rpm has the same files, and keeps the configuration (it is not installed)"
rpm_files
step "a clean Debian 12"
have_root || fail "mmdebstrap cannot make a clean Debian 12"
clean_root
step "the OCI image: built without a registry, and run"
image
step "the guest: systemd and kernel WireGuard"
guest
step "done"
