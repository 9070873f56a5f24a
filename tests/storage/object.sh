#!/bin/sh
# The suite on an object store: moto's double of S3 (from PyPI) on loopback, plain HTTP. Builds `cutover-board-object`,
# whose dependencies are many: minutes.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
need python3:python3 curl:curl
python=python3
if ! $python -c 'import moto.server, flask' 2>/dev/null; then
    python3 -m venv "$work/venv" >/dev/null 2>&1 || skip "no python3-venv"
    python=$work/venv/bin/python
    "$python" -m pip install -q 'moto[s3,server]' >/dev/null 2>&1 || skip "cannot install moto from PyPI"
fi

"$cargo" build --quiet --locked -p cutover -p cutover-board-object
board=${CARGO_TARGET_DIR:-$(pwd)/target}/debug/cutover-board-object
port=$((20000 + $$ % 20000))
# By one thread: moto looks whether the name is there and puts it in two steps, with nothing around them.
"$python" -c "
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple('127.0.0.1', $port, DomainDispatcherApplication(create_backend_app), threaded=False)
" >"$work/moto.log" 2>&1 &
server=$!
# shellcheck disable=SC2317 # called at the end, by what lib.sh sets
end() { kill "$server" 2>/dev/null || true; }
wait_for curl -s "http://127.0.0.1:$port/moto-api/"
curl -s -X PUT "http://127.0.0.1:$port/fleets" >/dev/null

# Keys stand in a file, not in the words that everybody can see.
cat >"$work/options" <<END
# moto believes everybody
aws_access_key_id = nobody
aws_secret_access_key = nothing
aws_region = us-east-1
aws_endpoint = http://127.0.0.1:$port
allow_http = true
END
say "moto $("$python" -c 'import moto; print(moto.__version__)')"
export CUTOVER_STORAGE="exec:$board s3://fleets/shop/{} --options $work/options"
suite shared::of_all shared::what_one shared::what_is shared::two_nodes shared::three_nodes

# A store that takes the condition and ignores it: there everybody would be first. It must be refused.
port=$((port + 1))
"$python" -c "
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
moto = DomainDispatcherApplication(create_backend_app)
def ignoring(environ, start):
    environ.pop('HTTP_IF_NONE_MATCH', None)
    return moto(environ, start)
run_simple('127.0.0.1', $port, ignoring, threaded=False)
" >"$work/ignoring.log" 2>&1 &
ignoring=$!
# shellcheck disable=SC2317 # as above
end() { kill "$server" "$ignoring" 2>/dev/null || true; }
wait_for curl -s "http://127.0.0.1:$port/moto-api/"
curl -s -X PUT "http://127.0.0.1:$port/fleets" >/dev/null
sed "s|^aws_endpoint.*|aws_endpoint = http://127.0.0.1:$port|" "$work/options" >"$work/ignoring"
mkdir "$work/node"
cat >"$work/node.toml" <<END
root = "$work/node"
[fleet]
mode = "synchronous"
name = "shop"
directory = "exec:$board s3://fleets/shop --options $work/ignoring"
node = "n0"
allow_unsigned = true
END
if "$(dirname "$board")/cutover" --config "$work/node.toml" fleet init >"$work/said" 2>&1; then
    say "a store that ignores conditions was taken"
    exit 1
fi
grep -q "ignores" "$work/said" || { cat "$work/said"; exit 1; }
say "a store that ignores conditions is refused"
