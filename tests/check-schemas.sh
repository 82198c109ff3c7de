#!/bin/bash
# check-schemas.sh: check-jsonschema from PyPI, a judge that is not of our making, looks at every schema, and
# at every sample by the schema that its first line names. It fails where it is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tool=${XDG_CACHE_HOME:-$HOME/.cache}/moenet-tests/venv/bin/check-jsonschema
[ -x "$tool" ] || tool=$(command -v check-jsonschema) || {
  echo "!!! no check-jsonschema: schemas and samples are NOT checked (tests/deps.sh tests installs it)" >&2
  exit 1
}

"$tool" --check-metaschema schemas/*.json

declare -A by_schema
while IFS= read -r file; do
  read -r line < "$file"
  schema=${line#'# yaml-language-server: $schema='}
  [ "$schema" != "$line" ] || { echo "$file: its first line names no schema" >&2; exit 1; }
  schema=$(realpath --relative-to=. "$(dirname "$file")/$schema")
  [ -f "$schema" ] || { echo "$file: there is no $schema" >&2; exit 1; }
  by_schema[$schema]+="$file"$'\n'
done < <(find state examples/documents examples/demo/config.yaml -name '*.yaml' | sort)

count=0
for schema in "${!by_schema[@]}"; do
  mapfile -t files < <(printf %s "${by_schema[$schema]}")
  "$tool" --schemafile "$schema" "${files[@]}"
  count=$((count + ${#files[@]}))
done
[ "$count" -ge 21 ] || { echo "only $count samples were found" >&2; exit 1; }

# It can say no.
sed 's/mtu: 1420/mtu: 70000/' state/sessions/wg_4242421080.yaml > "${TMPDIR:-/tmp}/check-schemas.$$.yaml"
trap 'rm -f "${TMPDIR:-/tmp}/check-schemas.$$.yaml"' EXIT
if "$tool" --schemafile schemas/BgpSession.json "${TMPDIR:-/tmp}/check-schemas.$$.yaml" > /dev/null; then
  echo "check-jsonschema takes an MTU of 70000" >&2; exit 1
fi
echo "$count samples keep to their schemas"
