#!/usr/bin/env bash
# Run cargo test with the given arguments, and end with one line of totals over all test programs.
#
# A test that fails runs once more, by itself: most of them have real containers, on machines with neighbours. It counts
# as failed when it fails again, and is named as unsteady when it does not. More than three failures are no accident.
set -uo pipefail

MOST_AGAIN=3

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

# Each failed test, and how cargo is told of its program.
mapfile -t again < <(awk '
    / Running unittests src\/lib.rs / { program = "--lib" }
    / Running unittests src\/main.rs / { program = "--bins" }
    / Running tests\// { program = $2; sub(/^tests\//, "", program); sub(/\.rs$/, "", program); program = "--test " program }
    / Doc-tests / { program = "--doc" }
    /^test .* \.\.\. FAILED$/ { print program, $2 }' "$log" | sort -u)
if [ "${#again[@]}" = "$failed" ] && [ "$failed" -le "$MOST_AGAIN" ]; then
    for test in "${again[@]}"; do
        read -r -a words <<<"$test"
        echo "== once more, by itself: $test"
        cargo test "$@" "${words[@]:0:${#words[@]}-1}" -- --exact "${words[-1]}" 2>&1 | tee "$log"
        if [ "${PIPESTATUS[0]}" = 0 ] && grep -q '^test result: ok. 1 passed' "$log"; then
            echo "UNSTEADY: $test failed among the others and passed by itself"
            passed=$((passed + 1))
            failed=$((failed - 1))
        fi
    done
    [ "$failed" != 0 ] || status=0
fi

echo
echo "$passed passed, $failed failed"
exit "$status"
