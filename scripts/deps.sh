#!/usr/bin/env bash
# Install what building and testing revenant needs on Debian 12 or 13. Installs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

at_least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
packages=(
    build-essential ca-certificates git                 # compiling
    patchelf python3 python3-venv                       # the CRIU bundle, the test store
    runc mmdebstrap musl-tools busybox-static           # tests in real containers
    buildah libcap2-bin                                 # the images
    skopeo                                              # reads an exported image in a test
    golang-go golang-github-masterminds-sprig-dev python3-yaml  # the Helm chart, tested
    shellcheck                                          # make lint
    art-nextgen-simulation-tools                        # the reads of make demo
    podman zstd lz4                                     # what make bench compares with
)

# For the Azure server of the store's tests. Whoever has npm from elsewhere keeps it.
command -v npm >/dev/null || packages+=(npm)

say() { echo "deps: $*" >&2; }

command -v apt-get >/dev/null || { say "this is not Debian; install the equivalents of: ${packages[*]}"; exit 1; }

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done

# Rust from rustup, unless a good one is there already.
rust_version() { cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p'; }
new_enough() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$at_least"; }
[ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH
rust_is_missing=false
new_enough "$(rust_version)" || rust_is_missing=true
if $rust_is_missing && ! command -v rustup >/dev/null && [ -n "$(apt-cache search --names-only '^rustup$')" ]; then
    missing+=(rustup)
fi

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ]; then
        say "installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update
        apt-get -qq --yes --no-install-recommends install "${missing[@]}" </dev/null >/dev/null
    else
        say "missing packages. Run: sudo apt-get install --no-install-recommends ${missing[*]}"
        exit 1
    fi
fi

if $rust_is_missing; then
    if ! command -v rustup >/dev/null; then
        say "Rust $at_least or later is needed, and this Debian has no rustup. Install it from https://rustup.rs, then run \`make deps\` again."
        exit 1
    fi
    # An old cargo of the distribution may come first in PATH; rustup's wins only if it is asked.
    rustup default stable >&2
    new_enough "$(rust_version)" || {
        say "cargo in PATH is still $(command -v cargo) $(rust_version); remove it, or put rustup's first in PATH"
        exit 1
    }
fi
for component in clippy rustfmt; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component" >&2
done
say "everything is there: $(rustc --version)"
