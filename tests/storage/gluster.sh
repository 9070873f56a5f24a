#!/bin/sh
# The suite on GlusterFS: a volume of three replicas on loopback, and a FUSE client for each node. Races again while the
# bricks are killed one after the other.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need glusterd:glusterfs-server mount.glusterfs:glusterfs-client
! pgrep -x glusterd >/dev/null || skip "a glusterd runs on this machine already"

volume=cutover-test
disturber=
drop_volume() {
    gluster --mode=script volume stop $volume force >/dev/null 2>&1 || true
    gluster --mode=script volume delete $volume >/dev/null 2>&1 || true
}
end() {
    [ -z "$disturber" ] || kill "$disturber" 2>/dev/null || true
    unmount
    drop_volume
    kill "$(cat "$work/glusterd.pid")" 2>/dev/null || true
}

glusterd --pid-file "$work/glusterd.pid" --log-file "$work/glusterd.log"
wait_for gluster volume list
# Of a run that was killed.
drop_volume
host=$(hostname)
getent hosts "$host" >/dev/null || host=127.0.0.1
bricks=
for number in 0 1 2; do
    mkdir -p "$work/brick-$number"
    bricks="$bricks $host:$work/brick-$number"
done
# shellcheck disable=SC2086 # a list of words
gluster --mode=script volume create $volume replica 3 $bricks force >/dev/null
gluster volume start $volume >/dev/null
lines=
for number in 0 1 2; do
    mkdir "$work/mount-$number"
    mount -t glusterfs "$host:/$volume" "$work/mount-$number"
    lines="$lines
$work/mount-$number"
done
export CUTOVER_STORAGE="$lines"
say "$(glusterfs --version | head -1), replica 3, 3 clients"
# shellcheck disable=SC2086 # a list of words
suite $everything

# One brick of three after the other is killed, started again, and healed: two that miss different things are no majority.
heals() { ! gluster volume heal $volume info 2>/dev/null | grep -q 'entries: [1-9-]'; }
disturb() {
    number=0
    while :; do
        brick=$work/brick-$((number % 3))
        for process in $(pgrep -f "glusterfsd .*--brick-name $brick( |$)"); do kill -9 "$process"; done
        sleep 3
        gluster volume start $volume force >/dev/null 2>&1
        sleep 2
        wait_for heals
        number=$((number + 1))
        echo "$number" >"$work/kills"
    done
}
say "the same races while bricks are killed"
disturb &
disturber=$!
suite shared::of_all_clients
say "bricks were killed $(cat "$work/kills") times"
