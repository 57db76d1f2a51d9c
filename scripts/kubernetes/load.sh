#!/usr/bin/env bash
# Give the test cluster an image: load.sh IMAGE.tar (an OCI or Docker archive).
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
for node in "${nodes[@]}"; do control "$node" images import "$1" >/dev/null; done
