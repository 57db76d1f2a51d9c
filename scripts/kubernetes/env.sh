# shellcheck shell=bash disable=SC2034 # sourced: these are the names that up.sh, down.sh and kubectl share
# Where the test cluster keeps things. Everything of it runs in one network namespace; nothing listens on
# the machine's own addresses.
cache=${REVENANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/revenant}
programs=$(readlink -f "$cache/kubernetes")
state=${KUBERNETES_STATE:-$cache/kubernetes-state}
logs=$state/log
pids=$state/pids
conf=$state/conf
run=$state/run

namespace=revenant-k8s
# Two nodes on one machine: each with a containerd, a kubelet, an address and a control group of its own.
nodes=(node1 node2)
api_address=10.250.0.1
service_network=10.96.0.0/16
api_service=10.96.0.1

inside() { nsenter --net="/run/netns/$namespace" -- "$@"; }
# NODE COMMAND...: ctr of that node.
control() {
    local node=$1
    shift
    ctr --address "$run/$node/containerd.sock" --namespace k8s.io "$@"
}
# A process that up.sh started carries its name, so that a reused PID is not mistaken for it.
lives() { [ -s "$pids/$1" ] && grep -qsaz "^REVENANT_KUBERNETES=$1\$" "/proc/$(cat "$pids/$1")/environ"; }
export PATH=$programs/bin:$PATH
