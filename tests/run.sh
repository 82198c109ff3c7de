#!/bin/bash
# run.sh: every check of the project, each stage timed. All run even when one fails.
#
#   tests/run.sh             everything
#   tests/run.sh live vm     these stages; they are: deps birds fmt clippy deny schemas unit scale live doc tools book static apis vm powercut package demo
#
# The stages run one after the other, but for some that run beside another at the lowest priority: those that need
# processors and no daemon in time beside live, whose tests mostly wait for daemons; a guest beside another, which keeps
# one of two processors busy.
set -uo pipefail
beside_of() {
  case $1 in
    live) echo clippy doc tools book static apis ;;
    package) echo powercut ;;
  esac
}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
passed=0 failed=0 broken= lane=
logs=$(mktemp -d)
unsteady=$logs/unsteady.tests
trap '[ -z "$lane" ] || kill -- "-$lane" 2>/dev/null; rm -rf "$logs"' EXIT

deps()   { tests/deps.sh tests && tests/deps.sh vm && tests/deps.sh package; }
birds()  { tests/lab/fetch-birds; }
fmt()    { cargo fmt --all --check; }
clippy() { cargo clippy --quiet --all-targets -- -D warnings; }
doc()    { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items; }
# What the book, the packages and the guest are made with; each is kept.
tools()  {
  packaging/build tools || not_checked "packages (cargo-deb and cargo-generate-rpm cannot be built)"
  mdbook_tool && tests/lab/vm/image-for-tests
}
# Its commands are tests of it and live.
book()   { mdbook_tool && mdbook build docs; }
unit()   { cargo test --quiet --lib --bins --examples && steady it && cargo test --quiet --doc; }
schemas() { tests/check-schemas.sh; }
apis()   { cargo build --quiet && tests/check-apis.sh "${MOENET_AGENT:-target/debug/moenet-agent}"; }
# Counts what a start with fifty sessions takes; it measures no time. Counts that were exceeded, as on a busy machine, must
# keep within their bounds twice more, as a test must that failed there. Any other failure is one.
scale()  {
  local rc=0
  cargo build --quiet || return
  counts || rc=$?
  case $rc in
    0) ;;
    3) counts && counts && echo "scale: counts were exceeded once, and kept twice" >>"$unsteady" || return ;;
    *) return 1 ;;
  esac
  tests/lab/bench/run --host target/debug/moenet-agent 50 --broken
}
counts() { tests/lab/bench/scale.sh --counts target/debug/moenet-agent 50; }
# Packages of the program that the other stages have built, so they are not those that are published.
package() {
  cargo build --quiet && cargo build --quiet --example book || return
  beside $(wanted_beside package)
  tests/lab/package/run.sh "${MOENET_AGENT:-$PWD/target/debug/moenet-agent}"
}
# A second build for another target, so without what only a debugger needs: it takes about two minutes.
static() {
  tests/deps.sh static || { not_checked "the static program (what builds it cannot be installed)"; return; }
  rm -f target/package/moenet-agent-*-x86_64-linux-musl*
  CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 MOENET_PROFILE=dev packaging/build static &&
    tests/lab/package/static.sh target/package/moenet-agent-*-x86_64-linux-musl
}
# With the program that the other stages have built; the demo by itself makes a release build.
demo()   {
  local book=${CARGO_TARGET_DIR:-$PWD/target}/debug/examples/book
  cargo build --quiet && cargo build --quiet --example book &&
    MOENET_AGENT=${MOENET_AGENT:-$PWD/target/debug/moenet-agent} "$book" demo README.md 'Two commands'
}

# Licences and sources are also checked by tests/it/licences.rs, always. cargo-deny adds bans and advisories; Debian
# has no package of it and building it takes minutes, so it is used where it is installed and built (once, into
# target/) only with DENY=1. The advisories need a database from GitHub. What could not be checked is said, and
# fails only with DENY=1.
deny() {
  local PATH=$PATH:$PWD/target/tools/bin
  if ! cargo deny --version >/dev/null 2>&1; then
    [ "${DENY:-}" = 1 ] && install_deny || { unchecked "bans and advisories (no cargo-deny; DENY=1 builds it)"; return; }
  fi
  cargo deny check licenses bans sources || return
  timeout 120 cargo deny fetch db || { unchecked "advisories (their database cannot be fetched)"; return; }
  cargo deny check --disable-fetch advisories
}

# mdBook, without its server and search. Hardly optimised, which builds in a minute.
mdbook_tool() {
  PATH=$PATH:$PWD/target/tools/bin
  mdbook --version >/dev/null 2>&1 || install_mdbook
}

install_mdbook() {
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --debug \
    --no-default-features --version "^0.5.4" --root target/tools mdbook
  local rc=$?
  rm -rf target/tools/build
  return $rc
}

install_deny() {
  echo "building cargo-deny, at most ${DENY_SECONDS:-1200} s"
  timeout "${DENY_SECONDS:-1200}" cargo install --quiet --locked --version "^0.20" --root target/tools cargo-deny
}

unchecked() {
  not_checked "$1"
  [ "${DENY:-}" != 1 ]
}

# Such lines of all stages are repeated at the end.
not_checked() { echo "!!! NOT checked: $1" >&2; }

# One test waits until a handshake of WireGuard, which has its own clock, is 180 s old. It runs beside all others,
# so that it costs no time. The others mostly wait for daemons: four at a time keep two processors busy.
#
# A kernel without GRE cannot have those two tests: the guest of the vm stage has it, and runs them always.
live() {
  local long=a_silent_one_is_after_three_minutes said program rc=0 elsewhere=()
  program=$(program_of live) || return
  # The tests are built before something else needs the processors and the lock of the build.
  beside $(wanted_beside live)
  has_gre || { elsewhere=(--skip a_session_over_gre --skip a_session_over_ip6gre)
    echo "this kernel has no GRE: the tests of gre and ip6gre run in the guest (stage vm)"; }
  said=$(mktemp)
  "$program" "$long" >"$said" 2>&1 &
  steady live --test-threads=4 --skip "$long" "${elsewhere[@]}" || rc=1
  wait $! || rc=1
  grep -q '^test result: ok. 1 passed' "$said" || { echo "the test $long did not pass:" >&2; rc=1; }
  cat "$said"; rm -f "$said"
  return $rc
}

# program_of BINARY: builds a binary of tests, once, and prints its path. It is started without cargo, whose lock a
# build beside it holds.
program_of() {
  [ -s "$logs/$1.program" ] || cargo test --no-run --test "$1" --message-format=json-render-diagnostics |
    jq -re --arg name "$1" 'select(.executable != null and .target.name == $name) | .executable' >"$logs/$1.program"
  cat "$logs/$1.program" && [ -s "$logs/$1.program" ]
}

# steady BINARY ARGUMENT…: runs the tests of a binary, side by side. They share two processors with the daemons they
# start. A test that fails there runs three times more, alone: only if it passes each time is it called unsteady, which
# the last lines of the run say. More than two such tests fail the stage, as does a binary that ended early, or one that
# counts other failures than it names.
steady() {
  local binary=$1 program said failed count name
  shift
  program=$(program_of "$binary") || return
  said=$(mktemp)
  "$program" "$@" 2>&1 | tee "$said"
  [ "${PIPESTATUS[0]}" = 0 ] && { rm -f "$said"; return; }
  mapfile -t failed < <(awk '/^failures:$/ { n = 0 } /^    [a-z0-9_:]+$/ { name[n++] = $1 }
    END { for (i = 0; i < n; i++) print name[i] }' "$said")
  count=$(sed -n 's/^test result: FAILED\..* \([0-9]*\) failed;.*/\1/p' "$said")
  rm -f "$said"
  [ ${#failed[@]} -ge 1 ] && [ ${#failed[@]} -le 2 ] && [ ${#failed[@]} = "$count" ] || return 1
  for name in "${failed[@]}"; do
    for _ in 1 2 3; do alone "$program" "$name" || return 1; done
    echo "$binary: $name failed beside other tests, and passed three times alone" >>"$unsteady"
  done
}

# alone PROGRAM TEST: runs one test. A name that matches no test does not pass.
alone() {
  local said rc=0
  said=$("$1" --exact "$2" 2>&1) || rc=1
  printf '%s\n' "$said"
  grep -q '^test result: ok. 1 passed' <<<"$said" || rc=1
  return $rc
}

# Tried in a namespace that goes away with the trial.
has_gre() {
  unshare --net bash -c 'ip link add g4 type gre local 192.0.2.1 remote 192.0.2.2 &&
    ip link add g6 type ip6gre local 2001:db8::1 remote 2001:db8::2' 2>/dev/null
}

vm() {
  local tests
  tests=$(program_of live) && tests/lab/vm-tests.sh target/debug/moenet-agent "$tests"
}

powercut() { cargo build --quiet && tests/lab/powercut/run.sh target/debug/moenet-agent; }

stage() {
  local start=$SECONDS
  printf '\n=== %s\n' "$1"
  if logged "$1"; then verdict "$1" passed $((SECONDS - start)); else verdict "$1" FAILED $((SECONDS - start)); fi
}

# verdict STAGE passed|FAILED SECONDS
verdict() {
  if [ "$2" = passed ]; then passed=$((passed + 1)); else failed=$((failed + 1)) broken="$broken $1"; fi
  printf '=== %s %s in %d s\n' "$1" "$2" "$3"
}

# wanted_beside STAGE: prints the stages of this run that run beside a stage.
wanted_beside() {
  for name in $(beside_of "$1"); do
    case " $wanted " in *" $name "*) echo "$name" ;; esac
  done
}

# beside STAGE…: starts the stages, one after the other, in a session of their own that ends by itself.
beside() {
  [ $# -gt 0 ] || return
  echo "beside it: $*"
  LOGS=$logs setsid timeout 2400 nice -n 19 tests/run.sh --beside "$@" &
  lane=$!
}

# What beside runs: its results are files, which joined reads.
in_lane() {
  local start rc
  for name in "$@"; do
    start=$SECONDS rc=0
    "$name" >"$LOGS/$name" 2>&1 || rc=1
    echo "$rc $((SECONDS - start))" >"$LOGS/$name.result"
  done
}

# joined STAGE…: waits for the stages that run beside, and shows what they said. One without a result did not pass.
joined() {
  local rc seconds
  [ -z "$lane" ] || wait "$lane"
  lane=
  for name in "$@"; do
    printf '\n=== %s\n' "$name"
    cat "$logs/$name" 2>/dev/null
    read -r rc seconds <"$logs/$name.result" 2>/dev/null || rc=1 seconds=0
    if [ "$rc" = 0 ]; then verdict "$name" passed "$seconds"; else verdict "$name" FAILED "$seconds"; fi
  done
}

# The output goes to a file too. What a stage leaves running may keep it open, so its end is not waited for long.
logged() {
  local out tee rc
  exec {out}> >(exec tee "$logs/$1")
  tee=$!
  "$1" >&"$out" 2>&1
  rc=$?
  exec {out}>&-
  for _ in {1..50}; do kill -0 "$tee" 2>/dev/null || break; sleep 0.1; done
  return $rc
}

# The last lines are what a reader of a failed run sees first.
causes() {
  [ "$failed" = 0 ] && return
  printf '\n=== causes\n'
  for name in $broken; do tests/lab/failures "$name" "$logs/$name"; done | head -n 100
}

# What this machine could not check, and what passed only alone.
warnings() {
  grep -qs '^!!! NOT checked' "$logs"/* && { printf '\n=== NOT checked\n'; grep -hs '^!!! NOT checked' "$logs"/*; }
  [ -s "$unsteady" ] || return
  printf '\n=== UNSTEADY, to be repaired\n'
  cat "$unsteady"
  for name in unit live; do
    grep -q ' panicked at ' "$logs/$name" 2>/dev/null && tests/lab/failures "$name" "$logs/$name" | head -n 50
  done
}

STAGES="deps birds fmt clippy deny schemas unit scale live doc tools book static apis vm powercut package demo"
if [ "${1:-}" = --beside ]; then shift; in_lane "$@"; exit; fi
[ $# -gt 0 ] || set -- $STAGES
for name in "$@"; do
  case " $STAGES " in
    *" $name "*) ;;
    *) echo "run.sh: no stage $name" >&2; exit 64 ;;
  esac
done
# A full disk fails tests by the dozen, each with another message.
free=$(df --output=avail -BG . | tail -n 1 | tr -dc 0-9)
[ "$free" -ge 20 ] || echo "!!! $free GB are free here; a whole run needs about 20"
wanted=$*
lanes=
for name in "$@"; do lanes+=" $(wanted_beside "$name" | xargs)"; done
for name in "$@"; do
  case " $lanes " in
    *" $name "*) ;;
    *) stage "$name"; joined $(wanted_beside "$name") ;;
  esac
done
causes
warnings
printf '\n%s%d passed, %d failed\n' "${broken:+failed:$broken; }" "$passed" "$failed"
[ "$failed" = 0 ]
