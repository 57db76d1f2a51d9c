#!/usr/bin/env bash
# Build the images of the survival matrix with buildah, pulling nothing: writes build/kubernetes/NAME.tar.
#
#   scripts/kubernetes/images.sh CACHE      needs `make stage`; as root
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${1:?usage: images.sh CACHE}
. scripts/buildah.sh
mkdir -p build/kubernetes

# NAME BASE: the workload on that base.
build() {
    store build --quiet --pull=never --isolation=chroot --build-arg "BASE=localhost/$2" --ignorefile scripts/kubernetes/dockerignore \
        --file scripts/kubernetes/Dockerfile --tag "localhost/$1:1" . >/dev/null
    push "$1"
}
push() {
    rm -f "build/kubernetes/$1.tar"
    store push --quiet "localhost/$1:1" "docker-archive:build/kubernetes/$1.tar:localhost/$1:1"
}

import base localhost/base
build counter base
# For runAsNonRoot: the capabilities in the program file (docs/users.md). What `RUN setcap …` does, without setcap in the image.
ordinary=$(store from --pull-never localhost/counter:1)
mounted=$(store mount "$ordinary")
setcap cap_checkpoint_restore,cap_setpcap,cap_sys_ptrace,cap_sys_admin,cap_sys_time+p "$mounted/opt/revenant/bin/revenant"
store unmount "$ordinary" >/dev/null
store commit --quiet --rm "$ordinary" localhost/counter-user:1 >/dev/null
push counter-user
# For a job whose image changes: another C library.
import debian-13 localhost/debian-13
build counter-debian-13 debian-13
store rmi --prune >/dev/null 2>&1 || true
ls build/kubernetes/*.tar
