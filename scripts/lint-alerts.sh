#!/usr/bin/env bash
# Check the alert rules with promtool, syntax and behaviour, and the dashboard's JSON.
#
#   scripts/lint-alerts.sh CACHE
#
# promtool comes from Debian's package prometheus, unpacked into CACHE: nothing is installed, no server started.
set -euo pipefail
cache=${1:?usage: lint-alerts.sh CACHE}
cd "$(dirname "$0")/../deploy"
python3 -m json.tool grafana-dashboard.json >/dev/null
if ! command -v promtool >/dev/null; then
    if [ ! -x "$cache/promtool/promtool" ]; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        echo "lint: fetching promtool into $cache (once)" >&2
        (cd "$work" && apt-get -qq download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool)
        mkdir -p "$cache/promtool"
        mv "$work/usr/bin/promtool" "$cache/promtool/promtool"
    fi
    export PATH=$PATH:$cache/promtool
fi
promtool check rules alerts.yaml
promtool test rules alerts-test.yaml
