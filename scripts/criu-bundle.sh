#!/usr/bin/env bash
# Make a self-contained CRIU: the program, every shared library that it needs and their loader,
# in one directory that runs on any Linux of the same architecture, glibc or musl, old or new.
#
#   scripts/criu-bundle.sh CACHE      prints the bundle's directory
#
# CRIU comes from Debian testing, because 4.2 is the first version that works on kernels ≥ 6.16
# and no stable Debian has it. Nothing is installed: apt resolves, downloads and checks the
# packages in a state directory of its own, and only the files that CRIU loads are unpacked.
#
# The bundle runs in two ways:
#   DIR/ld-linux-x86-64.so.2 --library-path DIR DIR/criu …    from any directory
#   /opt/revenant/criu/criu …                                 from its usual place, so that file
#                                                             capabilities on it work as well
set -euo pipefail

suite=forky
at_least=4.2
home=/opt/revenant/criu

cache=${1:?usage: criu-bundle.sh CACHE}
key=$(sha256sum "$0" | cut -c1-16)
mkdir -p "$cache"
exec 9>"$cache/.criu.lock"
flock 9

if [ "$(cat "$cache/criu/.key" 2>/dev/null)" = "$key" ]; then
    readlink -f "$cache/criu"
    exit
fi

say() { echo "criu-bundle: $*" >&2; }

for tool in apt-get dpkg-deb patchelf sha256sum; do
    command -v "$tool" >/dev/null || { say "$tool is missing; run \`make deps\`"; exit 1; }
done

architecture=$(dpkg --print-architecture)
case $architecture in
    amd64) loader=ld-linux-x86-64.so.2 ;;
    arm64) loader=ld-linux-aarch64.so.1 ;;
    *) say "no bundle for $architecture: revenant supports amd64 and arm64"; exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mirror=$("$(dirname "$0")/debian-mirror.sh")

mkdir -p "$work"/{state/lists/partial,cache/archives/partial,root,bundle/licenses}
: >"$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
// A mirror may stand still for weeks; testing's Release file is valid for one. Signatures stay checked.
Acquire::Check-Valid-Until "false";
CONF
export APT_CONFIG=$work/apt.conf

say "fetching CRIU and its libraries from $mirror $suite"
apt-get -qq update >&2
apt-get -qq --yes --download-only install criu >/dev/null

for package in "$work"/cache/archives/*.deb; do
    # By tar, and not dpkg-deb --extract, because merged-/usr systems ship some files under /lib.
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work/root" --no-same-owner --exclude='./usr/share/locale' \
        --exclude='./usr/share/info' --exclude='./usr/share/man'
done

# Every library by its name, so that the loader below can say which ones are needed.
mkdir "$work/libraries"
find "$work/root" -name '*.so*' \( -type f -o -type l \) -not -path '*/gconv/*' -not -path '*/compel/*' \
    -exec cp -L -n -t "$work/libraries" {} + 2>/dev/null || true
criu=$(find "$work/root" -path '*/sbin/criu' -type f)
if [ ! -x "$criu" ] || [ ! -f "$work/libraries/$loader" ]; then
    say "the packages do not hold criu and $loader"
    exit 1
fi

bundle=$work/bundle
cp "$criu" "$bundle/criu"
cp "$work/libraries/$loader" "$bundle/"
needed=$("$work/libraries/$loader" --library-path "$work/libraries" --list "$bundle/criu" |
    sed -n "s|.*=> $work/libraries/\([^ ]*\) .*|\1|p")
for library in $needed; do
    [ "$library" = "$loader" ] || cp "$work/libraries/$library" "$bundle/"
done

# Only criu itself is patched. It names every library of the closure as its own, so its run path
# is enough for all of them. RUNPATH, unlike RPATH, yields to --library-path.
patchelf --set-interpreter "$home/$loader" --set-rpath "$home" "$bundle/criu"
direct=$(patchelf --print-needed "$bundle/criu")
for library in $needed; do
    grep -qxF "$library" <<<"$direct" || [ "$library" = "$loader" ] || patchelf --add-needed "$library" "$bundle/criu"
done

# What is inside: the packages that gave at least one file, their versions and their licences.
for package in "$work"/cache/archives/*.deb; do
    name=$(dpkg-deb --field "$package" Package)
    files=$(dpkg-deb --fsys-tarfile "$package" | tar -t | sed 's|.*/||')
    if [ "$name" = criu ] || grep -qxFf <(ls "$bundle") <<<"$files"; then
        echo "$name $(dpkg-deb --field "$package" Version)"
        cp "$work/root/usr/share/doc/$name/copyright" "$bundle/licenses/$name"
    fi
done | sort >"$bundle/versions.txt"

chmod 0755 "$bundle" "$bundle/licenses" "$bundle/criu" "$bundle/$loader"
run() { "$bundle/$loader" --library-path "$bundle" "$bundle/criu" "$@"; }
version=$(run --version | sed -n 's/^Version: //p')
[ -n "$version" ] || { say "the bundled criu does not run"; exit 1; }
dpkg --compare-versions "$version" ge "$at_least" ||
    { say "$mirror $suite has CRIU $version; revenant needs $at_least or later"; exit 1; }
outside=$("$bundle/$loader" --library-path "$bundle" --list "$bundle/criu" | grep '=>' | grep -vF "=> $bundle/" || true)
[ -z "$outside" ] || { say "libraries are taken from outside the bundle:"; echo "$outside" >&2; exit 1; }

echo "$key" >"$bundle/.key"
target=$cache/criu-$version
rm -rf "$target.new" && mv "$bundle" "$target.new"
rm -rf "$target" && mv "$target.new" "$target"
ln -sfn "criu-$version" "$cache/criu"
say "CRIU $version and $(wc -w <<<"$needed") libraries, $(du -sh "$target" | cut -f1), in $target"
echo "$target"
