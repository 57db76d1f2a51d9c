#!/usr/bin/env bash
# Make the root file system with the real programs that `make programs` preempts, once.
#
#   scripts/programs/rootfs.sh CACHE   prints the directory; CACHE/rootfs/programs links to it
#
# A script of its own and not a variant of scripts/rootfs.sh, whose content is the key of the test images:
# a change of this list must not make those again.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=bookworm
cache=${1:?usage: rootfs.sh CACHE}
packages=python3,procps,megahit,spades,kraken2,diamond-aligner,bowtie2,samtools,minimap2,openjdk-17-jre-headless,r-base-core
packages+=,python3-numpy,perl,postgresql-15,vim-tiny,gzip,trimmomatic

say() { echo "rootfs: $*" >&2; }

key=$(sha256sum <scripts/programs/rootfs.sh | cut -c1-16)
target=$cache/rootfs/programs-$key
mkdir -p "$cache/rootfs"
exec 9>"$cache/rootfs/.programs.lock"
flock 9

if [ ! -d "$target" ]; then
    [ "$(id -u)" = 0 ] || { say "making a root file system needs root"; exit 1; }
    command -v mmdebstrap >/dev/null || { say "mmdebstrap is missing; run \`make deps\`"; exit 1; }
    rm -rf "$target.new"
    mirror=$(scripts/debian-mirror.sh)
    say "making programs from $mirror $suite"
    # shellcheck disable=SC2016 # $1 is mmdebstrap's
    mmdebstrap --quiet --mode=root --variant=essential --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --essential-hook='mkdir -p "$1/usr/share/man/man1"' \
        "$suite" "$target.new" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >&2
    : >"$target.new/etc/resolv.conf"
    echo localhost >"$target.new/etc/hostname"
    rm -rf "$target"
    mv "$target.new" "$target"
    say "$(du -sh "$target" | cut -f1) in $target"
fi
ln -sfn "programs-$key" "$cache/rootfs/programs"
echo "$target"
