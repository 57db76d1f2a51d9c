#!/usr/bin/env bash
# Start a real Kubernetes of two nodes in a network namespace of its own. Idempotent; needs build.sh first.
#
#   scripts/kubernetes/up.sh          as root
#
# EVICT_HARD, EVICT_SOFT (like 2Gi), EVICT_SOFT_AFTER (8s), EVICT_SOFT_GRACE (seconds): the kubelet's thresholds.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/env.sh"
mkdir -p "$logs" "$pids" "$conf" "$run" "$state"/{home,etcd}
chmod 0700 "$conf"

say() { echo "kubernetes: $*" >&2; }

start() { # NAME COMMAND...
    local name=$1
    shift
    lives "$name" && return
    setsid nsenter --net="/run/netns/$namespace" -- env "HOME=$state/home" "REVENANT_KUBERNETES=$name" "$@" >>"$logs/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$pids/$name"
}

await() { # SECONDS WHAT COMMAND...
    local seconds=$1 what=$2
    shift 2
    for ((i = 0; i < seconds * 5; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    say "$what is not ready after $seconds s; see $logs"
    exit 1
}

# The network: a bridge with the nodes' addresses, and the API's service address, as kube-proxy would set it up.
[ -e "/run/netns/$namespace" ] || ip netns add "$namespace"
inside ip link set lo up
inside ip link show node0 >/dev/null 2>&1 || inside ip link add node0 type bridge
for number in 1 2; do inside ip address replace "10.250.0.$number/24" dev node0; done
inside ip link set node0 up
inside ip route replace default dev node0
inside sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
for chain in PREROUTING OUTPUT; do
    rule=("$chain" --table nat --destination "$api_service" --protocol tcp --dport 443 --jump DNAT --to-destination "$api_address:6443")
    inside iptables --check "${rule[@]}" 2>/dev/null || inside iptables --append "${rule[@]}"
done
[ -e "$run/netns.before" ] || ls /run/netns >"$run/netns.before"
# What the kubelet changes on the machine, for down.sh to put back.
[ -s "$run/sysctl.before" ] || sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops \
    kernel.keys.root_maxkeys kernel.keys.root_maxbytes >"$run/sysctl.before"

if [ ! -s "$conf/admin.kubeconfig" ]; then
    (
        cd "$conf"
        umask 077
        openssl genrsa -out sa.key 2048
        openssl rsa -in sa.key -pubout -out sa.pub
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /CN=revenant-k8s
        openssl req -newkey rsa:2048 -nodes -keyout apiserver.key -out apiserver.csr -subj /CN=kube-apiserver
        openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out apiserver.crt -extfile \
            <(echo "subjectAltName=IP:127.0.0.1,IP:$api_address,IP:$api_service,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc")
        token=$(openssl rand -hex 16)
        echo "$token,admin,admin,\"system:masters\"" >tokens.csv
        cat >admin.kubeconfig <<X
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $conf/ca.crt}}]
users: [{name: u, user: {token: $token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
X
    ) >"$logs/openssl.log" 2>&1
fi

start etcd "$programs/bin/etcd" --name e --data-dir "$state/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
    --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster e=http://127.0.0.1:2380
start kube-apiserver "$programs/bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 \
    --advertise-address="$api_address" --service-cluster-ip-range="$service_network" \
    --tls-cert-file="$conf/apiserver.crt" --tls-private-key-file="$conf/apiserver.key" \
    --service-account-key-file="$conf/sa.pub" --service-account-signing-key-file="$conf/sa.key" \
    --service-account-issuer=https://kubernetes.default.svc --token-auth-file="$conf/tokens.csv" \
    --authorization-mode=RBAC --allow-privileged=true --cert-dir="$run/apiserver-certs" \
    --kubelet-preferred-address-types=InternalIP --v=1
await 90 kube-apiserver "$here/kubectl" get --raw /readyz
start kube-controller-manager "$programs/bin/kube-controller-manager" --kubeconfig="$conf/admin.kubeconfig" \
    --service-account-private-key-file="$conf/sa.key" --root-ca-file="$conf/ca.crt" --leader-elect=false \
    --bind-address=127.0.0.1 --cert-dir="$run/controller-certs" --v=1 --pod-eviction-timeout=20s --node-monitor-grace-period=40s
start kube-scheduler "$programs/bin/kube-scheduler" --kubeconfig="$conf/admin.kubeconfig" --leader-elect=false \
    --bind-address=127.0.0.1 --cert-dir="$run/scheduler-certs" --v=1

# NODE HOME: how to come into the node's mount namespace, in words. Each node has its own /var/log/pods: a kubelet removes there
# what is of no pod of its own. The node's first process makes the namespace; the mounts end with its last.
into() {
    local node=$1 home=$2 name
    for name in "containerd-$node" "kubelet-$node"; do
        lives "$name" && { echo nsenter "--mount=/proc/$(cat "$pids/$name")/ns/mnt" --; return; }
    done
    echo unshare --mount --propagation slave -- "$here/node.sh" "$home/logs"
}

# No name service: asking fails at once.
echo 'nameserver 127.0.0.1' >"$conf/resolv.conf"

# The heredocs of a node stand at the margin.
begin_node() { # NUMBER
    local number=$1 node=node$1 address=10.250.0.$1 home=$state/node$1 socket=$run/node$1/containerd.sock group=revenant-node$1
    mkdir -p "$run/$node" "$home"/{network,containerd,kubelet,logs/pods,logs/containers} /var/log/{pods,containers}
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e "$hierarchy/cgroup.procs" ] && mkdir -p "$hierarchy/$group"
    done
cat >"$conf/$node.toml" <<X
version = 2
root = "$home/containerd"
state = "$run/$node/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$home/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$programs/cni"
    conf_dir = "$home/network"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
X
cat >"$home/network/10-bridge.conflist" <<X
{"cniVersion": "0.4.0", "name": "revenant-k8s", "plugins": [
 {"type": "bridge", "bridge": "cni$number", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$home/network-data", "ranges": [[{"subnet": "10.244.$number.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
# shellcheck disable=SC2046 # words
start "containerd-$node" $(into "$node" "$home") "$programs/bin/containerd" --config "$conf/$node.toml"
await 20 "containerd of $node" ctr --address "$socket" version
control "$node" images list --quiet | grep -q '^localhost/pause:1$' || control "$node" images import "$programs/pause.tar" >/dev/null

cat >"$conf/$node-kubelet.yaml" <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$group
address: $address
healthzPort: 0
readOnlyPort: 0
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
resolvConf: $conf/resolv.conf
evictionHard: {memory.available: "${EVICT_HARD:-100Mi}", nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
${EVICT_SOFT:+evictionSoft: {memory.available: "$EVICT_SOFT"\}}
${EVICT_SOFT:+evictionSoftGracePeriod: {memory.available: "${EVICT_SOFT_AFTER:-8s}"\}}
evictionMaxPodGracePeriod: ${EVICT_SOFT_GRACE:-20}
evictionPressureTransitionPeriod: 15s
imageGCHighThresholdPercent: 100
serializeImagePulls: false
volumePluginDir: $home/kubelet-plugins
nodeStatusUpdateFrequency: 4s
X
# shellcheck disable=SC2046 # words
start "kubelet-$node" $(into "$node" "$home") "$programs/bin/kubelet" --kubeconfig="$conf/admin.kubeconfig" --config="$conf/$node-kubelet.yaml" \
    --root-dir="$home/kubelet" --cert-dir="$home/kubelet/pki" --hostname-override="$node" --node-ip="$address" \
    --container-runtime=remote --container-runtime-endpoint="unix://$socket" --register-node=true --v=2
}

ready() {
    [ "$("$here/kubectl" get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}
for number in 1 2; do begin_node "$number"; done
for node in "${nodes[@]}"; do await 90 "node $node" ready "$node"; done
await 30 "the default service account" "$here/kubectl" get serviceaccount default
