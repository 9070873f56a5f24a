#!/bin/sh
# test-dist.sh DIST: what `make dist` made, each piece installed by get.sh in a Debian root made fresh, and used: the package by
# dpkg, the RPM where only rpm is there, the archive where neither is. What is not signed by the key, or is not what was signed,
# is not installed. Needs root, mmdebstrap and a mirror; skips out loud without them. What is for another kind of machine is
# unpacked only, and its program run by QEMU.
set -eu
dist=$(realpath "$1")
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
skip() { echo "SKIPPED the test of what is published: $1" >&2; exit 0; }
fail() { echo "FAILED: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || skip "needs root"
command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
[ -e "$dist/SHA256SUMS" ] || fail "$dist has no SHA256SUMS: make dist"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What was built for another kind of machine: the program of each piece, by QEMU's emulation of a program.
archive=$(basename "$dist"/cutover-*.tar.gz)
machine=$(echo "$archive" | sed -n 's/.*-\([a-z0-9_]*\)-[a-z]*-linux-.*/\1/p')
if [ "$machine" != "$(uname -m)" ]; then
    qemu=qemu-$machine-static
    command -v "$qemu" >/dev/null || skip "what was built for $machine needs $qemu (Debian: qemu-user-static)"
    mkdir "$work/archive" "$work/package" "$work/RPM" "$work/build" "$work/root"
    tar -xzf "$dist/$archive" -C "$work/archive" --strip-components=1
    dpkg-deb -x "$dist"/cutover_*.deb "$work/package"
    for rpm in "$dist"/cutover-*."$machine".rpm; do
        [ ! -e "$rpm" ] || bsdtar -xf "$rpm" -C "$work/RPM"
    done
    echo page >"$work/build/page"
    "$qemu" "$work/archive/usr/bin/cutover" --version
    "$qemu" "$work/archive/usr/bin/cutover" pack "$work/build" --product shop --version 1.0.0 -o "$work/shop-1.0.0.tar.zst" >/dev/null
    "$qemu" "$work/archive/usr/bin/cutover" --root "$work/root" update "$work/shop-1.0.0.tar.zst" --allow-unsigned
    "$qemu" "$work/archive/usr/bin/cutover" --root "$work/root" verify
    [ "$(cat "$work/root/current/page")" = page ] || fail "the release is not active"
    for piece in package RPM; do
        [ -e "$work/$piece/usr/bin/cutover" ] || { echo "SKIPPED the $piece: none was built, or nothing here opens it" >&2; continue; }
        cmp "$work/archive/usr/bin/cutover" "$work/$piece/usr/bin/cutover" || fail "the $piece has another program"
    done
    echo "ok   $machine: packs, updates and verifies, emulated"
    exit 0
fi
mmdebstrap --quiet --variant=apt --include=curl,openssh-client,rpm "$suite" "$work/fresh" >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" >&2; skip "cannot make a Debian root"; }
program=$work/program
mkdir "$program"
tar -xzf "$dist"/cutover-*.tar.gz -C "$program" --strip-components=1

# Signed as docs say: by the program's own means.
"$program/usr/bin/cutover" keygen "$work/team" >/dev/null
"$program/usr/bin/cutover" keygen "$work/other" >/dev/null
mkdir "$work/fresh/dist"
cp "$dist"/* packaging/get.sh "$work/fresh/dist/"
"$program/usr/bin/cutover" sign --as release "$work/fresh/dist/SHA256SUMS" --key "$work/team" >/dev/null
key=$(cut -d' ' -f1,2 "$work/team.pub")
other=$(cut -d' ' -f1,2 "$work/other.pub")

# What every machine with RPMs has, as its database there tells.
if command -v rpmbuild >/dev/null; then
    printf '%s\n' 'Name: base' 'Version: 1' 'Release: 1' 'Summary: a shell' 'License: none' 'BuildArch: noarch' \
        'Provides: /bin/sh' %description 'A shell.' %files >"$work/base.spec"
    rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "_rpmdir $work" --define "_rpmfilename base.rpm" "$work/base.spec" \
        2>"$work/log" || { cat "$work/log" >&2; fail "the RPM that stands for a distribution"; }
    cp "$work/base.rpm" "$work/fresh/"
    chroot "$work/fresh" rpm -i /base.rpm 2>/dev/null || fail "the RPM that stands for a distribution"
fi

inside() { chroot "$work/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
get() { inside sh /dist/get.sh file:///dist "$1" >"$work/log" 2>&1; }
anew() {
    rm -rf "$work/root"
    cp -a "$work/fresh" "$work/root"
}
is_absent() { [ ! -e "$work/root/usr/bin/cutover" ] || fail "$1 was installed"; }

anew
get "$other" && fail "another's key was taken"
is_absent "what another signed"
for file in "$work"/root/dist/cutover*; do printf x >>"$file"; done
get "$key" && fail "what is not what was signed was taken"
is_absent "what is not what was signed"

use() {
    inside cutover --version
    mkdir -p "$work/root/srv/shop" "$work/root/tmp/build"
    echo "of a $1" >"$work/root/tmp/build/page"
    inside cutover pack /tmp/build --product shop --version 1.0.0 -o /tmp/shop-1.0.0.tar.zst >/dev/null
    inside cutover --root /srv/shop update /tmp/shop-1.0.0.tar.zst --allow-unsigned >/dev/null 2>"$work/log" ||
        { cat "$work/log" >&2; fail "the program of the $1 does not update"; }
    [ "$(cat "$work/root/srv/shop/current/page")" = "of a $1" ] || fail "the release of the $1 is not active"
    [ -d "$work/root/etc/cutover/keys" ] || fail "the $1 lacks the directory of keys"
    for file in lib/systemd/system/cutover@.timer share/bash-completion/completions/cutover; do
        [ -e "$work/root/usr/$file" ] || fail "the $1 lacks $file"
    done
    echo "ok   $1: installed, and a release with it"
}
for kind in package RPM archive; do
    case $kind in
    RPM) ls "$dist"/*.rpm >/dev/null 2>&1 || { echo "SKIPPED the RPM: none was built" >&2; continue; } ;;
    esac
    anew
    case $kind in
    RPM) rm "$work/root/usr/bin/dpkg" ;;
    archive) rm "$work/root/usr/bin/dpkg" "$work/root/usr/bin/rpm" ;;
    esac
    get "$key" || { cat "$work/log" >&2; fail "get.sh does not install the $kind"; }
    use "$kind"
    if [ "$kind" = RPM ]; then
        inside rpm -V cutover || fail "rpm finds other files than the package's"
        inside rpm -e cutover || fail "rpm does not remove it"
        is_absent "what was removed"
        [ "$(cat "$work/root/srv/shop/current/page")" = "of a RPM" ] || fail "the removal touched the application"
        [ -z "$(cd "$work/root/usr" && find . -name '*cutover*')" ] || fail "rpm left files behind"
    fi
done
