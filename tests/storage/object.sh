#!/bin/sh
# The suite on an object store: moto's double of S3 (from PyPI) on loopback, plain HTTP. Builds `cutover-board-object`,
# whose dependencies are many: minutes.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
need python3:python3 curl:curl
if command -v moto_server >/dev/null 2>&1; then
    moto=moto_server
else
    python3 -m venv "$work/venv" >/dev/null 2>&1 || skip "no python3-venv"
    "$work/venv/bin/pip" install -q 'moto[s3,server]' >/dev/null 2>&1 || skip "cannot install moto from PyPI"
    moto=$work/venv/bin/moto_server
fi

"$cargo" build --quiet --locked -p cutover -p cutover-board-object
board=${CARGO_TARGET_DIR:-$(pwd)/target}/debug/cutover-board-object
port=$((20000 + $$ % 20000))
"$moto" -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
server=$!
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
say "moto $(python3 -c 'import moto; print(moto.__version__)' 2>/dev/null || echo of PyPI)"
export CUTOVER_STORAGE="exec:$board s3://fleets/shop/{} --options $work/options"
suite shared::of_all shared::what_one shared::what_is shared::two_nodes shared::three_nodes
