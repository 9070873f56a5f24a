#!/bin/sh
# get.sh URL KEY: fetches what `make dist` made from URL, sees that SHA256SUMS is signed by KEY (a public key of
# ssh-keygen's) and that the package is the one that it names, and installs it. Nothing is installed that was not verified.
#
#   sh get.sh https://example.org/cutover/0.1.0 "ssh-ed25519 AAAA… team"
set -eu
[ $# = 2 ] || { echo "usage: get.sh URL KEY" >&2; exit 2; }
url=$1 key=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fetch() { curl -fsSL --proto '=https,file' -o "$2" "$1"; }
command -v ssh-keygen >/dev/null || { echo "error: ssh-keygen is needed to verify (Debian: openssh-client)" >&2; exit 1; }
fetch "$url/SHA256SUMS" SHA256SUMS
fetch "$url/SHA256SUMS.sig" SHA256SUMS.sig
printf 'cutover %s\n' "$key" >allowed
ssh-keygen -Y verify -f allowed -I cutover -n cutover-release -s SHA256SUMS.sig <SHA256SUMS >/dev/null ||
    { echo "error: SHA256SUMS is not signed by that key; nothing was installed" >&2; exit 12; }

if command -v dpkg >/dev/null; then
    file=$(sed -n "s/^[0-9a-f]*  \(cutover_.*_$(dpkg --print-architecture)\.deb\)\$/\1/p" SHA256SUMS)
elif command -v rpm >/dev/null; then
    file=$(sed -n "s/^[0-9a-f]*  \(cutover-.*\.$(uname -m)\.rpm\)\$/\1/p" SHA256SUMS)
else
    file=$(sed -n "s/^[0-9a-f]*  \(cutover-.*$(uname -m).*\.tar\.gz\)\$/\1/p" SHA256SUMS)
fi
[ -n "$file" ] || { echo "error: there is nothing for this machine in $url" >&2; exit 1; }
fetch "$url/$file" "$file"
grep -F "  $file" SHA256SUMS | sha256sum -c --quiet - || { echo "error: $file is not the one that was signed" >&2; exit 12; }
case $file in
*.deb) dpkg -i "$file" ;;
*.rpm) rpm -U "$file" ;;
*) tar -xzf "$file" -C / --strip-components=1 --no-same-owner ;;
esac
cutover --version
