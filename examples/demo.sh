#!/bin/sh
# The main job of cutover, for real, told as a story: no root, no systemd, nothing left behind.
# Everything below happens in one temporary directory; each command shown is the command run.
set -eu
cd "$(dirname "$0")/.."

# Where `cutover` and the shop come from: built here, unless somebody has built them already.
if [ -z "${CUTOVER:-}" ]; then
    # Not optimised: the demo has little to do. Where tests were built before, their parts are used.
    profile=demo
    [ ! -d "${CARGO_TARGET_DIR:-target}/debug/deps" ] || profile=dev
    echo "Building cutover and a small shop (the first time this takes some minutes; then the demo takes half a minute)"
    cargo build --locked --profile "$profile" --bin cutover --example shop
    built=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
    CUTOVER=$(realpath "$built/cutover")
    SHOP=$(realpath "$built/examples/shop")
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/cutover-demo.XXXXXX")
load_pid=
clean_up() {
    status=$?
    trap - EXIT INT TERM
    [ -z "$load_pid" ] || kill "$load_pid" 2>/dev/null || true
    # The shop that is still open closes; then everything goes.
    "$SHOP" stop --port "${port:-1}" --data "$work/data" 2>/dev/null || true
    if [ "$status" != 0 ]; then
        echo "the demo ended with status $status; what the shop said last:" >&2
        tail -n 5 "$work/data/shop.log" >&2 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
else
    bold='' dim='' plain=''
fi
chapter() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s\n' "$@"; }

cutover() { "$CUTOVER" --config "$work/shop.toml" "$@"; }

# Shows a command, runs it, and insists on the exit code that the story promises.
run() {
    wanted=$1
    shift
    shown=
    for word in "$@"; do
        case $word in *' '*) shown="$shown \"$word\"" ;; *) shown="$shown $word" ;; esac
    done
    printf '\n%s$ cutover%s%s\n' "$bold" "$shown" "$plain"
    code=0
    cutover "$@" || code=$?
    printf '%s(exit code %s)%s\n' "$dim" "$code" "$plain"
    [ "$code" = "$wanted" ] || { echo "the story wants exit code $wanted here" >&2; exit 1; }
}

visit() { printf '%s$ visit the shop%s\n%s\n' "$bold" "$plain" "$("$SHOP" get "http://127.0.0.1:$port/" 2>&1)"; }

# Waits until the pointer names this release, at most ten seconds.
wait_for_pointer() {
    tries=0
    until [ "$(readlink "$work/shop/current")" = "releases/$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 500 ] || { echo "the pointer never came to $1" >&2; exit 1; }
        sleep 0.02
    done
}

# A port that nobody listens on.
port=$((20000 + $$ % 20000))
while "$SHOP" get "http://127.0.0.1:$port/" 2>&1 | grep -vq refused; do port=$((port + 1)); done

# make_release VERSION LINE...: a directory with the program and its behaviour, packed into archive and manifest.
make_release() {
    version=$1
    shift
    mkdir -p "$work/build/$version/bin" "$work/build/$version/etc"
    cp "$SHOP" "$work/build/$version/bin/shop"
    { echo "greeting = Welcome to the shop, release $version"; printf '%s\n' "$@"; } >"$work/build/$version/etc/shop.conf"
    "$CUTOVER" pack "$work/build/$version" --product shop --version "$version" \
        -o "$work/published/shop-$version.tar.zst" >/dev/null
}

# publish VERSION: signs the release, and the channel that now says it is the one to run.
publish() { "$CUTOVER" publish "$work/published" "$1" --key "$work/team" >/dev/null; }

mkdir "$work/published" "$work/data" "$work/shop"
cat >"$work/shop.toml" <<END
root = "$work/shop"

[source]
url = "file://$work/published"
channel = "stable"
keys = ["$work/team.pub"]        # whose releases are taken

[service.command]                # no systemd needed; with it, say units = ["shop.service"]
start = ["bin/shop", "start", "--port", "$port", "--data", "$work/data"]
stop = ["bin/shop", "stop", "--port", "$port", "--data", "$work/data"]

[health]
min_healthy = "3s"               # real ones watch longer: 30s is the default
deadline = "20s"
interval = "200ms"

[[health.check]]
name = "answers"
http = { url = "http://127.0.0.1:$port/up" }
END

chapter "A shop on port $port"
say "A small shop, a real HTTP server, is to be kept up to date. Its team has packed four releases:" \
    "1.0.0 and 1.1.0 are good; 1.2.0 starts well, and starts to fail two seconds after its first good answer;" \
    "1.3.0 is good, and takes two seconds to start. The node has this configuration (its --config is left" \
    "out of the commands below):"
sed "s/^/    $dim/; s/\$/$plain/" "$work/shop.toml"
"$CUTOVER" keygen "$work/team" >/dev/null 2>&1
make_release 1.0.0
make_release 1.1.0
make_release 1.2.0 "sick_after = 2"
make_release 1.3.0 "start_delay = 2"

chapter "1. The first installation"
publish 1.0.0
run 0 update
visit

chapter "2. An update under load"
say "A crowd asks the shop 200 times a second, while the team publishes 1.1.0."
publish 1.1.0
"$SHOP" load --port "$port" >"$work/load" &
load_pid=$!
run 0 update
kill "$load_pid"
wait "$load_pid" || true
load_pid=
say "" "The crowd saw: $(cat "$work/load")" \
    "The failed ones asked between the stop of the old server and the start of the new; a socket unit of systemd" \
    "would have let them wait instead."

chapter "3. A release that starts to fail after its first good answer"
say "1.2.0 passes every test that asks only once. cutover watches the whole trial, and goes back by itself:" \
    "exit code 10 says that the new release was rolled back, and that the old one was seen healthy again."
publish 1.2.0
run 10 update
visit
say "" "The timer will ask again and again. The release is remembered as bad, and is not tried again:"
run 15 update

chapter "4. Somebody pulls the plug"
say "1.3.0 is out. In the middle of the switch, with the old server stopped and the new one not up yet," \
    "cutover is killed with SIGKILL."
publish 1.3.0
"$CUTOVER" --config "$work/shop.toml" update >/dev/null 2>&1 &
update_pid=$!
wait_for_pointer 1.3.0
sleep 0.5 # into the two seconds that the new server takes to start
kill -KILL "$update_pid"
wait "$update_pid" 2>/dev/null || true
say "" "Killed. \`current\` still names a complete release: current -> $(readlink "$work/shop/current")" \
    "The journal knows what was under way; on a real node a timer armed beforehand finishes it, also after a reboot."
run 0 recover
visit

chapter "5. Back by hand"
say "Somebody wants the old release back. This needs no network and no source: it is still there."
run 0 rollback --reason "the new prices are wrong"
visit
say "" "Going back by hand sets a hold: else the timer would undo it. Exit code 15 says not now, and why:"
run 15 update

chapter "6. What the node knows"
run 0 status
run 0 log

chapter "That was it"
say "Next: README.md has a ten-minute guide for an application of your own. All of this demo is removed now."
