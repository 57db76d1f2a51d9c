#!/usr/bin/env bash
# Build a Kubernetes from Debian's packages and source package, once; nothing is installed but tools.
#
#   scripts/kubernetes/build.sh CACHE     as root, on Debian 12; prints the directory with bin/, cni/ and pause.tar
#
# Debian 12 has the whole of Kubernetes 1.20.2 as a source package, and the Go that builds it. etcd, containerd
# and the network plugins come from their packages, unpacked: their services are never started.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${1:?usage: build.sh CACHE}
suite=bookworm
version=v1.20.2
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl)
tools=(golang-go gcc libc6-dev dpkg-dev iptables iproute2 ipset conntrack ebtables socat ethtool openssl util-linux procps python3-yaml runc)

say() { echo "kubernetes: $*" >&2; }
[ "$(id -u)" = 0 ] || { say "building the cluster needs root (packages are installed)"; exit 1; }

key=$(cat scripts/kubernetes/{build.sh,pause.c,image.py} | sha256sum | cut -c1-16)
target=$cache/kubernetes-$key
mkdir -p "$cache"
exec 9>"$cache/.kubernetes.lock"
flock 9

missing=()
for package in "${tools[@]}"; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install "${missing[@]}" </dev/null >/dev/null
fi
ln -sfn "kubernetes-$key" "$cache/kubernetes"
[ -d "$target" ] && { echo "$target"; exit; }

work=$cache/kubernetes.work
rm -rf "$work" "$target.new"
mkdir -p "$work"/{source,lists/partial,packages,home,path/src/k8s.io} "$target.new"/{bin,cni}
mirror=$(scripts/debian-mirror.sh)

# A list of our own: the system's configuration of apt stays as it is.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
printf '%s [signed-by=%s] %s %s main\n' deb "$keyring" "$mirror" "$suite" deb-src "$keyring" "$mirror" "$suite" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
say "fetching sources and packages"
"${apt[@]}" update
(cd "$work/source" && "${apt[@]}" source --download-only kubernetes)
(cd "$work/packages" && "${apt[@]}" download etcd-server containerd containernetworking-plugins golang-github-modern-go-reflect2-dev)

for package in "$work"/packages/*.deb; do dpkg-deb --extract "$package" "$work/unpacked"; done
cp "$work"/unpacked/usr/bin/{etcd,containerd,containerd-shim-runc-v2,ctr} "$target.new/bin/"
cp "$work"/unpacked/usr/lib/cni/{bridge,host-local,loopback,portmap} "$target.new/cni/"

tree=$work/path/src/k8s.io/kubernetes
dpkg-source --no-check --extract "$work"/source/kubernetes_*.dsc "$tree" >/dev/null
# The vendored reflect2 1.0.1 does not link with this Go; Debian's 1.0.2 does.
reflect=$tree/vendor/github.com/modern-go/reflect2
rm -f "$reflect"/*.go "$reflect"/*.s
cp "$work"/unpacked/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect/"
# This kubelet deletes a pod from the API only once its sandbox is collected as garbage, which happens once a
# minute. Without that check a test does not wait; signals, grace periods and kills are not touched.
python3 - "$tree/pkg/kubelet/kubelet_pods.go" <<'PY'
import sys
path = sys.argv[1]
text = open(path).read()
start = text.index("\t// pod's sandboxes should be deleted\n")
end = text.index("\tif kl.podVolumesExist(pod.UID) && !kl.keepTerminatedPodVolumes {\n", start)
open(path, "w").write(text[:start] + text[end:])
PY

export HOME=$work/home GOPATH=$work/path GOCACHE=$work/go-cache GOFLAGS='' GOPROXY=off GO111MODULE=off CGO_ENABLED=1
cd "$tree"
# The one generated file that the source package leaves out: the API server's OpenAPI definitions.
say "generating the API's definitions"
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
inputs=$({
    find pkg cmd plugin test -name '*.go' -print0
    find -L vendor/k8s.io -name '*.go' -not -path '*/code-generator/*' -not -path '*/sample-apiserver/*' -print0
} | xargs -0 grep --color=never -l '^// *+k8s:openapi-gen=' | xargs -n1 dirname | LC_ALL=C sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
"$work/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations" >/dev/null

flags="-s -w"
for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=20 -X $package.gitTreeState=clean"
    flags+=" -X $package.gitCommit=debian -X $package.buildDate=2021-01-13T13:20:00Z"
done
for program in "${programs[@]}"; do
    say "building $program"
    go build -ldflags "$flags" -o "$target.new/bin/" "./cmd/$program"
done
cd - >/dev/null

# What holds a pod's namespaces.
mkdir "$work/pause"
gcc -static -Os -s -o "$work/pause/pause" scripts/kubernetes/pause.c
python3 -B scripts/kubernetes/image.py localhost/pause:1 "$work/pause" "$target.new/pause.tar" --entrypoint /pause

mv "$target.new" "$target"
rm -rf "$work"
echo "$target"
