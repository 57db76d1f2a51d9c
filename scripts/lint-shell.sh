#!/usr/bin/env bash
# Check every shell script with shellcheck.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v shellcheck >/dev/null || { echo "lint: shellcheck is missing; run \`make deps\`" >&2; exit 1; }
mapfile -t scripts < <(git ls-files | while read -r file; do
    [ -f "$file" ] && head -n 1 "$file" | grep -aqE '^#!.*\b(ba)?sh$' && echo "$file"
done)
shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
