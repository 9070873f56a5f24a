#!/bin/sh
# Runs the tests: all that belong to every change, or the group named: nodes, storage, fleet, model, crashes.
# By nextest where it is installed (each test in a process of its own), else by cargo's own runner.
set -eu
cd "$(dirname "$0")/.."

what=${1:-all}
cargo=${CARGO:-cargo}
[ "$(id -u)" = 0 ] || echo "not root: tests of loop devices, owners and systemd nodes are skipped and say so" >&2

has_nextest() { "$cargo" nextest --version >/dev/null 2>&1; }

# Runs all tests, names those that skipped themselves, and ends with the runner's summary.
with_nextest() {
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    {
        status=0
        "$cargo" nextest run --locked -p cutover -p cutover-board-etcd --no-fail-fast 2>&1 || status=$?
        echo "$status" >"$log.status"
    } | tee "$log"
    status=$(cat "$log.status")
    rm -f "$log.status"
    junit=${CARGO_TARGET_DIR:-target}/nextest/default/junit.xml
    if [ -f "$junit" ] && grep -q SKIPPED "$junit"; then
        printf '\nskipped themselves on this machine:\n'
        grep -o 'SKIPPED [^<]*' "$junit" | sort -u | sed 's/^/  /'
        printf '\n'
        sed -n '/^ *Summary/,$p' "$log"
    fi
    exit "$status"
}

case $what in
all)
    if has_nextest; then
        with_nextest
    fi
    echo "no cargo-nextest: using cargo test" >&2
    exec "$cargo" test --locked -p cutover -p cutover-board-etcd --no-fail-fast
    ;;
nodes)
    [ -x tests/nodes/run ] || { echo "SKIPPED nodes: this tree has no tests/nodes/run" >&2; exit 0; }
    status=0
    tests/nodes/run || status=$?
    if ! tests/nodes/run fleet --short; then
        echo "the fleet, at a second attempt:"
        tests/nodes/run fleet --short || status=$?
    fi
    exit "$status"
    ;;
storage)
    # Each on storage of its own, one after the other; those that are named, else all.
    failed=
    shift
    for script in tests/storage/*.sh; do
        kind=$(basename "$script" .sh)
        [ "$kind" != lib ] || continue
        case " ${*:-$kind} " in *" $kind "*) ;; *) continue ;; esac
        printf '\n== %s\n' "$kind"
        "$script" || failed="$failed $kind"
    done
    [ -z "$failed" ] || { echo "FAILED on:$failed" >&2; exit 1; }
    exit 0
    ;;
fleet | model | crashes)
    name=$what
    [ "$what" != crashes ] || name=any_method
    status=0
    if has_nextest; then
        # What they found is said by the tests that pass, too: states, outcomes, seeds.
        "$cargo" nextest run --locked --no-fail-fast --run-ignored all --success-output immediate -E "test(/$name/)" ||
            status=$?
    else
        "$cargo" test --locked --no-fail-fast "$name" -- --include-ignored --nocapture || status=$?
    fi
    # Ten real nodes, where root may make them.
    [ "$what" != fleet ] || tests/nodes/run fleet || status=$?
    # Updaters that stand still, on eight.
    [ "$what" != crashes ] || tests/nodes/run still || status=$?
    exit "$status"
    ;;
*)
    echo "error: no group of tests is named \`$what\`" >&2
    exit 2
    ;;
esac
