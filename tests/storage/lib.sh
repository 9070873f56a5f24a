# shellcheck shell=sh
# What the scripts of this directory share: they are run by tests/run.sh, as root, each on storage of its own.
set -eu
cd "$(dirname "$0")/../.."

cargo=${CARGO:-cargo}
# How many names are raced for.
rounds=${ROUNDS:-1000}
name=$(basename "$0" .sh)

skip() {
    echo "SKIPPED $name: $*" >&2
    exit 0
}

say() { printf '%s: %s\n' "$name" "$*" >&2; }

# Makes sure of programs, as `program:package`, by apt where that may be done.
need() {
    missing=
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        skip "missing:$missing"
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of words
    { apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y $missing; } \
        >/dev/null 2>&1 || skip "cannot install$missing"
}

need_root() { [ "$(id -u)" = 0 ] || skip "only root may mount"; }
need_fuse() { [ -c /dev/fuse ] || skip "no /dev/fuse"; }

# A directory that goes, with all that was mounted in it and all that `end` ends.
work=$(mktemp -d /tmp/cutover-storage.XXXXXX)
end() { :; }
unmount() {
    grep -o " ${work}/[^ ]* " /proc/mounts | sort -r | while read -r mounted; do umount -l "$mounted" || true; done
}
clean() {
    status=$?
    trap - EXIT INT TERM
    end
    unmount
    rm -rf "$work"
    exit "$status"
}
trap clean EXIT
trap 'exit 1' INT TERM

# The suite on what `CUTOVER_STORAGE` names; further words choose among its tests.
suite() {
    CUTOVER_STORAGE_ROUNDS=$rounds "$cargo" test --quiet --locked --test it -- --include-ignored --nocapture \
        --test-threads=1 "$@"
}
# Those tests of it that look at the storage.
# shellcheck disable=SC2034 # used by the scripts that read this
everything='shared::of_all shared::what_ shared::two_nodes shared::three_nodes'

wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { say "never came: $*"; return 1; }
        sleep 0.2
    done
}
