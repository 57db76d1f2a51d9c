#!/usr/bin/env bash
# Build the images of docker/Dockerfile with buildah, pulling nothing, and run them once under runc.
#
#   scripts/image.sh CACHE            needs `make stage`; writes build/revenant-{bundle,base}.tar
#
# The base image is a Debian that scripts/rootfs.sh makes, imported under its usual name. With a
# registry at hand, `docker build -f docker/Dockerfile .` does the same.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${1:?usage: image.sh CACHE}
base=docker.io/library/debian:bookworm-slim

say() { echo "image: $*" >&2; }
[ "$(id -u)" = 0 ] || { say "building images needs root"; exit 1; }
[ -x build/opt/revenant/bin/revenant ] || { say "build/opt/revenant is missing; run \`make stage\`"; exit 1; }
. scripts/buildah.sh
import debian "$base" --cmd bash

mkdir -p build
for target in bundle base; do
    say "building revenant-$target"
    store build --quiet --pull=never --isolation=chroot --format oci --file docker/Dockerfile \
        --ignorefile docker/Dockerfile.dockerignore --target "$target" --tag "localhost/revenant-$target" . >/dev/null
    rm -f "build/revenant-$target.tar"
    store push --quiet "localhost/revenant-$target" "oci-archive:build/revenant-$target.tar:revenant-$target"
done

# What is in the image runs: revenant and CRIU, from the Debian image and from the empty one.
for target in bundle base; do
    container=$(store from --pull-never "localhost/revenant-$target")
    say "revenant-$target under runc:"
    for program in /opt/revenant/bin/revenant /opt/revenant/criu/criu; do
        store run --isolation=oci --runtime=runc "$container" -- "$program" --version
    done
    store rm "$container" >/dev/null
done
store rmi --prune >/dev/null 2>&1 || true
ls -lh build/revenant-*.tar >&2
