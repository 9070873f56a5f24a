#!/bin/sh
# The suite on sshfs: three mounts of one directory, each by an SFTP server of its own, without a network between.
# Then one mount hangs, because its server is stopped: what nodes do meanwhile must not notice.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need sshfs:sshfs
server=/usr/lib/openssh/sftp-server
[ -x "$server" ] || need sftp-server:openssh-sftp-server
[ -x "$server" ] || skip "no $server"

mkdir "$work/served"
servers=
end() {
    # shellcheck disable=SC2086 # a list of words
    [ -z "$servers" ] || kill -CONT $servers 2>/dev/null || true
}

# mount_all OPTION…: three mounts, and what their clients are told.
mount_all() {
    lines=
    servers=
    for number in 0 1 2; do
        mkdir -p "$work/mount-$number"
        # sshfs speaks with the server over this program's stdin and stdout, as it would with ssh's.
        printf '#!/bin/sh\necho $$ >%s/server-%s\nexec %s\n' "$work" "$number" "$server" >"$work/ssh-$number"
        chmod 755 "$work/ssh-$number"
        sshfs "$@" -o "ssh_command=$work/ssh-$number" "nobody@nowhere:$work/served" "$work/mount-$number"
        servers="$servers $(cat "$work/server-$number")"
        lines="$lines
$work/mount-$number"
    done
    export CUTOVER_STORAGE="$lines"
}

mount_all
say "default options: a listing may be old"
rounds=20 suite shared::what_one
unmount
mount_all -o dir_cache=no
say "without a cache of directories"
# shellcheck disable=SC2086 # a list of words
suite $everything

say "all mounts hang: their servers are stopped"
export CUTOVER_STORAGE_HANG="kill -STOP $servers" CUTOVER_STORAGE_RESUME="kill -CONT $servers"
suite shared::local_commands
