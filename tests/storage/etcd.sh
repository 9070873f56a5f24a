#!/bin/sh
# The suite on etcd: one member on loopback, plain HTTP; then with TLS in both directions and a user of its own, and
# after etcd was stopped and started.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
need etcd:etcd-server etcdctl:etcd-client openssl:openssl

"$cargo" build --quiet --locked -p cutover -p cutover-board-etcd
board=${CARGO_TARGET_DIR:-$(pwd)/target}/debug/cutover-board-etcd
port=$((20000 + $$ % 20000))
member=
end() { [ -z "$member" ] || kill "$member" 2>/dev/null || true; }

# start SCHEME OPTION…: one member, with data of its own.
start() {
    scheme=$1
    shift
    etcd --data-dir "$work/data-$scheme" --log-level error --listen-client-urls "$scheme://127.0.0.1:$port" \
        --advertise-client-urls "$scheme://127.0.0.1:$port" --listen-peer-urls "http://127.0.0.1:$((port + 1))" \
        --initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" \
        --initial-cluster "default=http://127.0.0.1:$((port + 1))" "$@" >"$work/etcd.log" 2>&1 &
    member=$!
}
stop() {
    kill "$member"
    wait "$member" 2>/dev/null || true
    member=
}

start http
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS="http://127.0.0.1:$port"
wait_for etcdctl endpoint health
say "$(etcd --version | head -1), one member"
# The first endpoint is not there: the next one is asked.
export CUTOVER_STORAGE="exec:$board --endpoint http://127.0.0.1:1 --endpoint http://127.0.0.1:$port --prefix /shop/{}"
suite shared::of_all shared::what_one shared::what_is shared::two_nodes shared::three_nodes
stop

# The same with certificates for both sides, and a user who may do nothing outside his prefix. etcd's JSON gateway refuses
# client certificates with a common name, so that nobody takes it for a user.
cd "$work"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout ca.key \
    -out ca.pem 2>/dev/null
for who in server client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/O=$who" -keyout $who.key \
        -out $who.csr 2>/dev/null
    printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >ext
    openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $who.pem 2>/dev/null
done
cd - >/dev/null
start https --cert-file "$work/server.pem" --key-file "$work/server.key" --client-cert-auth \
    --trusted-ca-file "$work/ca.pem"
export ETCDCTL_ENDPOINTS="https://127.0.0.1:$port" ETCDCTL_CACERT="$work/ca.pem" ETCDCTL_CERT="$work/client.pem" \
    ETCDCTL_KEY="$work/client.key"
wait_for etcdctl endpoint health
etcdctl user add root:secret >/dev/null
etcdctl user grant-role root root >/dev/null
etcdctl user add shop:shop-secret >/dev/null
etcdctl role add shop >/dev/null
etcdctl role grant-permission shop --prefix=true readwrite /shop/ >/dev/null
etcdctl user grant-role shop shop >/dev/null
etcdctl auth enable >/dev/null
! etcdctl --user shop:shop-secret get /other >/dev/null 2>&1 || { say "the user may read everything"; exit 1; }
echo shop-secret >"$work/password"
said="--endpoint https://127.0.0.1:$port --ca $work/ca.pem --cert $work/client.pem --key $work/client.key \
--user shop --password-file $work/password"
export CUTOVER_STORAGE="exec:$board $said --prefix /shop/{}"
say "with certificates on both sides and a user"
[ "$rounds" -lt 100 ] || rounds=100
suite shared::of_all
stop
