#!/usr/bin/env bash
# Print the Debian mirror that this machine already uses. Security and third-party archives are
# other things: they do not hold whole suites. DEBIAN_MIRROR overrides.
set -euo pipefail
# shellcheck disable=SC2016 # apt expands it
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | head -n 1 || true)}
[ -n "$mirror" ] || { echo "debian-mirror: apt knows no Debian mirror; set DEBIAN_MIRROR" >&2; exit 1; }
echo "$mirror"
