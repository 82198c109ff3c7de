#!/bin/bash
# run.sh: every check of the project, one stage after the other, each timed. All run even when one fails.
#
#   tests/run.sh             everything
#   tests/run.sh live vm     these stages; they are: deps birds fmt clippy deny schemas unit live vm demo
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
passed=0 failed=0 broken=

deps()   { tests/deps.sh tests && tests/deps.sh vm; }
birds()  { tests/lab/fetch-birds; }
fmt()    { cargo fmt --all --check; }
clippy() { cargo clippy --quiet --all-targets -- -D warnings; }
unit()   { cargo test --quiet --lib --bins --examples && cargo test --quiet --doc && other_tests; }
schemas() { tests/check-schemas.sh; }
live()   { cargo test --test live -- --test-threads=2; }
demo()   { examples/demo.sh; }

# Licences, bans and sources need nothing but the lock file. Advisories need the RustSec database from GitHub:
# where that is out of reach they are not checked, which CI does not let pass.
deny() {
  local PATH=$PATH:$PWD/target/tools/bin
  if ! cargo deny --version >/dev/null 2>&1 && ! install_deny; then
    unchecked "cargo-deny is not installed and could not be built: licences and advisories are NOT checked"; return
  fi
  cargo deny check licenses bans sources || return
  if ! cargo deny fetch db; then
    unchecked "the advisory database cannot be fetched: advisories are NOT checked, all else is"; return
  fi
  cargo deny check --disable-fetch advisories
}

# Debian has no package of it. Built once, in about five minutes on two processors, and kept in target/.
install_deny() {
  echo "building cargo-deny, at most ${DENY_SECONDS:-1200} s"
  timeout "${DENY_SECONDS:-1200}" cargo install --quiet --locked --version "^0.20" --root target/tools cargo-deny
}

unchecked() {
  echo "!!! $1" >&2
  [ -z "${CI:-}" ]
}

# The integration tests but the live ones.
other_tests() {
  local file names=()
  for file in tests/*.rs; do
    [ -e "$file" ] && names+=(--test "$(basename "$file" .rs)")
  done
  [ ${#names[@]} = 0 ] || cargo test --quiet "${names[@]}"
}

vm() {
  local tests
  tests=$(cargo test --no-run --test live --message-format=json 2>/dev/null |
    jq -r 'select(.executable != null and .target.name == "live") | .executable' | tail -1)
  [ -n "$tests" ] && tests/lab/vm-tests.sh target/debug/moenet-agent "$tests"
}

stage() {
  local start=$SECONDS
  printf '\n=== %s\n' "$1"
  if "$1"; then passed=$((passed + 1)); printf '=== %s passed in %d s\n' "$1" $((SECONDS - start))
  else failed=$((failed + 1)) broken="$broken $1"; printf '=== %s FAILED in %d s\n' "$1" $((SECONDS - start)); fi
}

[ $# -gt 0 ] || set -- deps birds fmt clippy deny schemas unit live vm demo
for name in "$@"; do
  case $name in
    deps | birds | fmt | clippy | deny | schemas | unit | live | vm | demo) stage "$name" ;;
    *) echo "run.sh: no stage $name" >&2; exit 64 ;;
  esac
done
printf '\n%s%d passed, %d failed\n' "${broken:+failed:$broken; }" "$passed" "$failed"
[ "$failed" = 0 ]
