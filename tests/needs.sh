#!/bin/sh
# Installs the Debian packages that tests use, when run as root; else names those that are missing.
# Nothing here is needed to build or to run cutover itself.
set -eu

# program:package
needs='
zstd:zstd
bsdtar:libarchive-tools
python3:python3
ssh-keygen:openssh-client
dpkg-deb:dpkg
mkfs.ext4:e2fsprogs
mkfs.xfs:xfsprogs
mkfs.btrfs:btrfs-progs
setfattr:attr
getfacl:acl
rsync:rsync
git:git
etcd:etcd-server
tmux:tmux
zsh:zsh
fish:fish
curl:curl
openssl:openssl
docker-registry:docker-registry
skopeo:skopeo
nginx:nginx-light
'

# Tools of mkfs and the like stand in directories that an ordinary user's PATH lacks.
PATH=$PATH:/usr/sbin:/sbin
missing=
for need in $needs; do
    command -v "${need%%:*}" >/dev/null 2>&1 || missing="$missing ${need##*:}"
done
[ -e /usr/share/zoneinfo/Europe/Berlin ] || missing="$missing tzdata"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing (install them as root; the tests that need them are skipped and say so)" >&2
    exit 0
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# Not fatal: tests that miss a program say so themselves.
apt-get -qq update >&2 || true
# shellcheck disable=SC2086 # a list of words
apt-get -qq install --no-install-recommends -y $missing >/dev/null || echo "cannot install$missing" >&2
