#!/usr/bin/env bash
# Stop the test cluster, by the process IDs that up.sh wrote down, and put the machine back.
#
#   scripts/kubernetes/down.sh [--wipe]     --wipe also forgets what the cluster holds
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/env.sh"

stop() {
    lives "$1" || { rm -f "$pids/$1"; return; }
    local pid
    pid=$(cat "$pids/$1")
    kill "$pid"
    for ((i = 0; i < 50; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.2
    done
    kill -9 "$pid" 2>/dev/null
    rm -f "$pids/$1"
}

# The pods first, while the kubelet can still end them.
if lives kubelet-node1 && lives kube-apiserver; then
    for kinds in deployments,daemonsets,statefulsets,replicasets,jobs,cronjobs pods; do
        timeout 60 "$here/kubectl" delete "$kinds" --all --all-namespaces --grace-period=1 --ignore-not-found --timeout=40s >>"$logs/down.log" 2>&1
    done
fi
stop kube-scheduler
stop kube-controller-manager
for node in "${nodes[@]}"; do stop "kubelet-$node"; done
for node in "${nodes[@]}"; do
    lives "containerd-$node" || continue
    for task in $(control "$node" tasks list --quiet 2>/dev/null); do
        control "$node" tasks kill --signal KILL --all "$task" 2>/dev/null
        sleep 0.2
        control "$node" tasks remove --force "$task" >/dev/null 2>&1
    done
    for container in $(control "$node" containers list --quiet 2>/dev/null); do
        control "$node" containers remove "$container" >/dev/null 2>&1
    done
    stop "containerd-$node"
done
stop kube-apiserver
stop etcd

awk -v under="$state/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do umount --lazy "$mount"; done
# Network namespaces of pods that came after ours.
if [ -e "$run/netns.before" ]; then
    for path in /run/netns/cni-*; do
        name=$(basename "$path")
        [ -e "$path" ] && ! grep -qsx "$name" "$run/netns.before" && [ -z "$(ip netns pids "$name" 2>/dev/null)" ] && ip netns delete "$name"
    done
fi
[ -e "/run/netns/$namespace" ] && [ -z "$(ip netns pids "$namespace")" ] && ip netns delete "$namespace"
rm -rf "$state"/node?/network-data /var/lib/cni/results/revenant-k8s-*
rmdir /var/log/pods /var/log/containers 2>/dev/null
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    for node in "${nodes[@]}"; do
        [ -d "$hierarchy/revenant-$node" ] && find "$hierarchy/revenant-$node" -depth -type d -exec rmdir {} \; 2>/dev/null
    done
done
[ -s "$run/sysctl.before" ] && sysctl --quiet --load="$run/sysctl.before" >/dev/null
rm -f "$run/sysctl.before" "$run/netns.before"
[ "${1:-}" = --wipe ] && rm -rf "$state"
exit 0
