#!/bin/sh
# test-deb.sh PACKAGE: installs, upgrades, removes and purges the package in a Debian root made fresh, and looks whether
# applications are left alone. Needs root, mmdebstrap and a mirror; skips out loud without them.
set -eu
package=$(realpath "$1")
suite=${SUITE:-bookworm}
skip() { echo "SKIPPED the package's test: $1" >&2; exit 0; }
[ "$(id -u)" = 0 ] || skip "needs root"
command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mmdebstrap --quiet --variant=apt "$suite" "$root" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; skip "cannot make a Debian root"; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
fail() { echo "FAILED: $1" >&2; exit 1; }

cp "$package" "$root/tmp/cutover.deb"
inside apt-get -qq install -y --no-install-recommends /tmp/cutover.deb >/dev/null 2>"$work/log" || { cat "$work/log" >&2; fail "install"; }
inside cutover --version
[ -d "$root/etc/cutover/keys" ] || fail "the directory of keys is missing"
for unit in cutover@.service cutover@.timer cutover-recover@.service; do
    [ -e "$root/usr/lib/systemd/system/$unit" ] || fail "$unit is missing"
done

# Its documents lead to each other, not out of the package.
find "$root/usr/share/doc/cutover" -name '*.md' | while read -r page; do
    # Without blocks of code, and without addresses.
    # shellcheck disable=SC2016  # these are backticks of Markdown
    sed '/^```/,/^```/d' "$page" | grep -o ']([^):#]*[)#]' | sed 's/^](//; s/[)#]$//' | grep -v '^$' | while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || echo "$(basename "$page") leads to $link"
    done
done >"$work/dead"
[ ! -s "$work/dead" ] || { cat "$work/dead" >&2; fail "links of the package's documents lead nowhere"; }

# An application, installed from an archive by hand.
mkdir -p "$root/srv/shop" "$root/tmp/build"
echo 1.0.0 >"$root/tmp/build/VERSION"
printf 'root = "/srv/shop"\n[store]\nreserve = "1MiB"\n' >"$root/etc/cutover/shop.toml"
inside cutover pack /tmp/build --product shop --version 1.0.0 -o /tmp/shop-1.0.0.tar.zst >/dev/null
inside cutover update /tmp/shop-1.0.0.tar.zst --allow-unsigned
[ "$(cat "$root/srv/shop/current/VERSION")" = 1.0.0 ] || fail "the release is not active"
before=$(cd "$root" && find srv/shop etc/cutover -printf '%p %y %s %T@\n' | sort)

same() {
    now=$(cd "$root" && find srv/shop etc/cutover -printf '%p %y %s %T@\n' | sort)
    [ "$before" = "$now" ] || fail "$1 touched the application"
}
inside apt-get -qq install -y --reinstall --no-install-recommends /tmp/cutover.deb >/dev/null 2>&1 || fail "upgrade"
same upgrade
inside apt-get -qq remove -y cutover >/dev/null 2>&1 || fail "remove"
[ -e "$root/usr/bin/cutover" ] && fail "the program is still there after the removal"
[ "$(cat "$root/srv/shop/current/VERSION")" = 1.0.0 ] || fail "remove touched the application"
inside apt-get -qq purge -y cutover >/dev/null 2>&1 || fail "purge"
[ "$(cat "$root/srv/shop/current/VERSION")" = 1.0.0 ] || fail "purge touched the application"
[ -e "$root/etc/cutover/shop.toml" ] || fail "purge removed the configuration"
left=$(cd "$root" && find usr -name '*cutover*' | head -n 5)
[ -z "$left" ] || fail "left behind: $left"
echo "the package installs, upgrades, is removed and purged; the application was left alone"
