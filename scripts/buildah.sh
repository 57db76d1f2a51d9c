# shellcheck shell=bash # sourced, with $cache set
# buildah with a storage of our own: what the machine's other images are is no business of these builds.
# vfs needs nothing of the kernel and works inside containers too.
storage=${cache:?}/containers
mkdir -p "$storage"
store() { buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs "$@"; }

# VARIANT IMAGE [OPTION...]: a root file system of scripts/rootfs.sh as this image, unless it is there already; the
# options are of `buildah config`.
import() {
    local variant=$1 image=$2 rootfs made_from empty
    shift 2
    rootfs=$(scripts/rootfs.sh "$cache" "$variant")
    made_from=$(basename "$rootfs")
    [ "$(store inspect --type image --format '{{index .OCIv1.Config.Labels "revenant.rootfs"}}' "$image" 2>/dev/null)" = "$made_from" ] && return
    echo "importing $made_from as $image" >&2
    empty=$(store from scratch)
    store add --quiet "$empty" "$rootfs" / >/dev/null
    store config --label "revenant.rootfs=$made_from" "$@" "$empty"
    store commit --quiet --rm "$empty" "$image" >/dev/null
}
