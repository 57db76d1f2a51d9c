#!/usr/bin/env bash
# Build the tool images of docker/tools with buildah and try each: its tool runs in it, is stopped at random moments and
# killed once, and must end with the result of an undisturbed run (scripts/programs).
#
#   scripts/tools.sh CACHE [TOOL...]     needs `make image`; writes build/tools/TOOL.{tar,spdx.json}
#
# On a machine with a registry and Debian's mirrors at hand, `docker build -f docker/tools/Dockerfile --target TOOL .` is all.
# Each image is built twice without a cache, and must have the same digest.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${1:?usage: tools.sh CACHE [TOOL...]}
shift
tools=("$@")
[ "${#tools[@]}" -gt 0 ] || tools=(megahit spades kraken2 diamond bowtie2 minimap2)

say() { echo "tools: $*" >&2; }
[ "$(id -u)" = 0 ] || { say "building images needs root"; exit 1; }
. scripts/buildah.sh
store inspect --type image localhost/revenant-base >/dev/null 2>&1 || { say "the base image is missing; run \`make image\`"; exit 1; }
out=build/tools
mkdir -p "$out" "$cache/programs"

# The image's own list of sources is an ordinary one; here the packages come from this machine's mirror.
sources=$(mktemp)
trap 'rm -f "$sources"' EXIT
echo "deb $(scripts/debian-mirror.sh) bookworm main" >"$sources"
chmod 644 "$sources"

# TOOL TAG
build() {
    store build --quiet --pull=never --no-cache --isolation=chroot --timestamp 0 --format oci --file docker/tools/Dockerfile \
        --volume "$sources:/etc/apt/sources.list:ro" --ignorefile docker/Dockerfile.dockerignore \
        --target "$1" --tag "$2" . >/dev/null
    store inspect --type image --format '{{.FromImageDigest}}' "$2"
}

for tool in "${tools[@]}"; do
    image=localhost/revenant-$tool
    say "building $tool"
    digest=$(build "$tool" "$image")
    again=$(build "$tool" "$image-again")
    [ "$digest" = "$again" ] || { say "$tool: built twice, it is $digest and $again: something in it depends on the moment"; exit 1; }
    store rmi "$image-again" >/dev/null
    rm -f "$out/$tool.tar"
    store push --quiet "$image" "oci-archive:$out/$tool.tar:revenant-$tool"

    container=$(store from --pull-never "$image")
    root=$(store mount "$container")
    python3 -B scripts/sbom.py --image "revenant-$tool" --digest "$digest" --root "$root" >"$out/$tool.spdx.json"
    say "$tool: $digest, $(du -h "$out/$tool.tar" | cut -f1), $(grep -c '"SPDXID": "SPDXRef-[dc]' "$out/$tool.spdx.json") packages; trying it"
    tried=0
    python3 -B scripts/programs/programs.py --rootfs "$root" --image --as-user 1000 --cache "$cache/programs" --only "$tool" >"$out/$tool.log" || tried=1
    store umount "$container" >/dev/null
    store rm "$container" >/dev/null
    [ "$tried" = 0 ] || { cat "$out/$tool.log" >&2; say "$tool does not survive"; exit 1; }
    tail -2 "$out/$tool.log"
done
store rmi --prune >/dev/null 2>&1 || true
