# suites.sh: packages of other Debian releases, without touching the machine's apt sources. Sourced.
#
#   lab_download "trixie sid" bird3/sid      fetch .deb files into the current folder; installs nothing
#   lab_install_from bookworm-backports PKG  install PKG from there, only if no installed package would change
#
# The mirror is the machine's own (or $DEBIAN_MIRROR); lists live in $LAB_APT (default ~/.cache/lab-apt) and
# are fetched once a day.
LAB_APT=${LAB_APT:-${XDG_CACHE_HOME:-$HOME/.cache}/lab-apt}
LAB_KEYRING=${LAB_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}

lab_codename() { . /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}"; }

# The repository that this machine's apt uses for a Debian release (not for -security or -updates).
lab_mirror() {
  [ -n "${DEBIAN_MIRROR:-}" ] && { printf '%s\n' "$DEBIAN_MIRROR"; return; }
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed 's/\[[^]]*\]//' | awk '$1 == "deb" { print $2, $3 }'
    for f in /etc/apt/sources.list.d/*.sources; do [ -e "$f" ] && awk 'BEGIN { RS = "" } {
        n = split($0, line, "\n"); uri = suites = ""
        for (i = 1; i <= n; i++) {
          if (line[i] ~ /^URIs:/) { split(line[i], word, /[ \t]+/); uri = word[2] }
          if (line[i] ~ /^Suites:/) { suites = line[i]; sub(/^Suites:/, "", suites) }
        }
        m = split(suites, s, /[ \t]+/); for (j = 1; j <= m; j++) if (s[j] != "") print uri, s[j] }' "$f"; done
    true
  } | awk '!found && $2 ~ /^(bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$/ { print $1; found = 1 } END { exit !found }' && return
  echo "no Debian release among this machine's apt sources: set DEBIAN_MIRROR to a Debian repository's address" >&2
  return 1
}

# Writes a source for the releases into a folder and fetches its lists: folder "suite..." apt-option...
lab_update() {
  local dir=$1 suites=$2 mirror s; shift 2
  [ -n "$(find "$dir/updated" -mtime -1 2>/dev/null)" ] && return
  mirror=$(lab_mirror) || return
  mkdir -p "$dir/lists/partial" "$dir/sources"
  for s in $suites; do echo "deb [signed-by=$LAB_KEYRING] $mirror $s main"; done > "$dir/sources/lab.list"
  # A mirror that stands still for a while serves lists past their date; what they list is signed all the same.
  apt-get -qq -o Acquire::Check-Valid-Until=false "$@" update && touch "$dir/updated"
}

lab_download() { # "suite..." package/suite...
  local dir="$LAB_APT/${1// /-}" suites=$1; shift
  local options=(-o "Dir::State::lists=$dir/lists" -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$dir/sources"
                 -o APT::Sandbox::User=root)
  lab_update "$dir" "$suites" "${options[@]}" && apt-get -qq "${options[@]}" download "$@"
}

# A package of another release may draw in newer libraries, and those the rest of the machine. So: the machine's
# pins stay in force, only the named packages may come from there, the plan is simulated first, and one that
# changes or removes what is installed is refused.
lab_install_from() { # suite package "packages that may come from the suite"
  local dir=$LAB_APT/install-$1 kind f plan
  local options=(-o "Dir::State::lists=$dir/lists" -o "Dir::Etc::sourceparts=$dir/sources"
                 -o "Dir::Etc::preferencesparts=$dir/pins" -o APT::Sandbox::User=root)
  rm -rf "$dir/pins"; mkdir -p "$dir/sources" "$dir/pins"
  for f in /etc/apt/sources.list.d/*; do case $f in *.list | *.sources) cp "$f" "$dir/sources/" ;; esac; done
  for f in /etc/apt/preferences.d/*; do if [ -e "$f" ]; then cp "$f" "$dir/pins/"; fi; done
  printf 'Package: %s\nPin: release n=%s\nPin-Priority: 990\n' "$3" "$1" > "$dir/pins/zz-lab"
  lab_update "$dir" "$1" "${options[@]}" || return
  plan=$(apt-get -s "${options[@]}" --no-install-recommends install "$2") || return
  if grep -E '^Remv |^Inst [^ ]+ \[' <<<"$plan" >&2; then
    echo "$2 from $1 would change the packages above, which are installed: not done" >&2; return 1
  fi
  apt-get -qq "${options[@]}" -y --no-install-recommends --no-remove --no-upgrade install "$2" >/dev/null
}
