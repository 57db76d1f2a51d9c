#!/usr/bin/env bash
# Run cargo test with the given arguments, and end with one line of totals over all test programs.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# Of each test program only the last result counts: some run themselves again, in namespaces of their own.
read -r passed failed < <(awk '
    function add() { p += passed; f += failed; passed = failed = 0 }
    /^ *(Running|Doc-tests) / { add() }
    /^test result: / { for (i = 2; i <= NF; i++) { if ($i == "passed;") passed = $(i-1); if ($i == "failed;") failed = $(i-1) } }
    END { add(); print p + 0, f + 0 }' "$log")
# A test program that does not compile, or that dies, has no result line, but it has failed.
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
echo
echo "$passed passed, $failed failed"
exit "$status"
