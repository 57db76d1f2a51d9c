#!/usr/bin/env bash
# Make a Debian root file system for containers, once, as a directory that is only ever read:
# each container puts an overlay of its own on top.
#
#   scripts/rootfs.sh CACHE VARIANT   prints the directory; CACHE/rootfs/VARIANT links to it
#
#   base      what the tests' workloads need: bash, coreutils, python3, procps
#   megahit   base and the MEGAHIT assembler
#   debian    a base image as registries offer it (debian:bookworm-slim), for docker/
#   debian-11, debian-13, debian-testing    other C libraries, older and newer
#   musl      no glibc at all: musl, busybox, and a program linked to musl
#   scratch   nothing but one static program
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${1:?usage: rootfs.sh CACHE VARIANT}
variant=${2:?usage: rootfs.sh CACHE VARIANT}

say() { echo "rootfs: $*" >&2; }

suite=bookworm
flavour=minbase
packages=
case $variant in
    base) packages=python3,procps flavour=essential ;;
    megahit) packages=python3,procps,megahit flavour=essential ;;
    debian) packages=ca-certificates ;;
    debian-11) suite=bullseye ;;
    debian-13) suite=trixie ;;
    debian-testing) suite=forky ;;
    musl | scratch) ;;
    *) say "unknown variant $variant; the first lines of this script name all"; exit 1 ;;
esac

key=$(cat scripts/rootfs.sh tests/images/steps.c <(echo "$variant") | sha256sum | cut -c1-16)
target=$cache/rootfs/$variant-$key
mkdir -p "$cache/rootfs"
exec 9>"$cache/rootfs/.lock"
flock 9

if [ -d "$target" ]; then
    ln -sfn "$variant-$key" "$cache/rootfs/$variant"
    echo "$target"
    exit
fi

[ "$(id -u)" = 0 ] || { say "making a root file system needs root"; exit 1; }
command -v mmdebstrap >/dev/null || { say "mmdebstrap is missing; run \`make deps\`"; exit 1; }

rm -rf "$target.new"

# A Debian of the suite.
debian() {
    local mirror
    mirror=$(scripts/debian-mirror.sh)
    say "making $variant from $mirror $suite"
    # No man pages, documentation and translations, as in Debian's slim images; licences stay. Testing's index may
    # be past its date on a mirror; its signature is checked all the same.
    mmdebstrap --quiet --mode=root --variant="$flavour" ${packages:+--include="$packages"} \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        "$suite" "$target.new" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >&2

    # Nothing of this machine stays inside. Container runtimes put their own files here.
    : >"$target.new/etc/resolv.conf"
    echo localhost >"$target.new/etc/hostname"
    if [ "$variant" = debian ]; then
        echo "deb http://deb.debian.org/debian $suite main" >"$target.new/etc/apt/sources.list"
        rm "$target.new/etc/apt/apt.conf.d/99mmdebstrap"
    fi
}

# What Alpine is made of, from Debian's packages.
musl() {
    local loader
    mkdir -p "$target.new"/{bin,lib,etc,tmp,root}
    musl-gcc -O1 -o "$target.new/bin/steps" tests/images/steps.c
    loader=$(readlink -f /lib/ld-musl-*.so.1)
    cp "$loader" "$target.new/lib/$(basename /lib/ld-musl-*.so.1)"
    cp "$(command -v busybox)" "$target.new/bin/busybox"
    for applet in sh ls cat sleep; do ln -s busybox "$target.new/bin/$applet"; done
}

scratch() {
    mkdir -p "$target.new"
    gcc -O1 -static -o "$target.new/steps" tests/images/steps.c
}

case $variant in
    musl) musl ;;
    scratch) scratch ;;
    *) debian ;;
esac

rm -rf "$target"
mv "$target.new" "$target"
ln -sfn "$variant-$key" "$cache/rootfs/$variant"
say "$(du -sh "$target" | cut -f1) in $target"
echo "$target"
