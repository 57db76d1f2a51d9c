#!/usr/bin/env bash
# Check licences, sources and bans of the dependencies (deny.toml) with cargo-deny; install it when missing.
#
#   scripts/deny.sh CACHE
set -euo pipefail
version=0.20.2
cache=${1:?usage: deny.sh CACHE}
export PATH=$PATH:$cache/cargo-deny-$version/bin
if ! command -v cargo-deny >/dev/null; then
    echo "deny: installing cargo-deny $version into $cache (once)" >&2
    cargo install --quiet --locked --root "$cache/cargo-deny-$version" "cargo-deny@$version"
fi
# Advisories need a database from outside the package registry; run `cargo deny check advisories` where it is reachable.
cargo deny --log-level error check licenses bans sources
