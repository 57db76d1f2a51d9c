#!/bin/sh
# The first process of a node, in a new mount namespace: node.sh LOGS COMMAND...
set -e
logs=$1
shift
# The kubelet's mounts are to be seen by the runtime and by what it starts.
mount --make-rshared /
for folder in pods containers; do mount --bind "$logs/$folder" "/var/log/$folder"; done
exec "$@"
