#!/bin/sh
# deb.sh TARGET: a Debian package in TARGET/debian. Needs dpkg-deb; dpkg-shlibdeps is used where it is there. ARCHITECTURE names
# another one than this machine's.
set -eu
cd "$(dirname "$0")/.."
target=$1
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=${ARCHITECTURE:-$(dpkg --print-architecture)}
out=$target/debian
stage=$out/stage
# Whoever gives the package to others names himself.
maintainer=${MAINTAINER:-The cutover authors <cutover@localhost.localdomain>}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
rm -rf "$stage"
mkdir -p "$stage/DEBIAN"

packaging/install.sh "$target" "$stage" /usr
# As Debian's packages are; a program built for tests is small enough to pack then, too. One that was built for another
# machine is stripped already.
if [ "$architecture" = "$(dpkg --print-architecture)" ] && command -v strip >/dev/null; then
    strip --strip-unneeded "$stage/usr/bin/cutover"
fi

# What Debian wants of its packages: compressed manuals, a changelog of the package, a copyright.
find "$stage/usr/share/man" -type f -exec gzip -9n {} +
cat >"$stage/usr/share/doc/cutover/changelog" <<END
cutover ($version) unstable; urgency=medium

  * What changed is in /usr/share/doc/cutover/CHANGELOG.md.

 -- $maintainer  $(date -R -d "@$SOURCE_DATE_EPOCH")
END
gzip -9n "$stage/usr/share/doc/cutover/changelog"
install -D -m 644 packaging/debian/lintian-overrides "$stage/usr/share/lintian/overrides/cutover"
cat >"$stage/usr/share/doc/cutover/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: cutover

Files: *
Copyright: 2026 The cutover authors
License: Apache-2.0 or MIT

License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.

License: MIT
$(sed '1,4d; s/^$/./; s/^/ /' LICENSE-MIT)
END
chmod 644 "$stage/usr/share/doc/cutover/copyright"

depends='libc6, libgcc-s1'
# A static program needs nothing.
if command -v readelf >/dev/null && ! readelf -d "$stage/usr/bin/cutover" | grep -q NEEDED; then
    depends=
elif command -v dpkg-shlibdeps >/dev/null; then
    mkdir -p "$out/debian"
    printf 'Source: cutover\n\nPackage: cutover\nArchitecture: any\n' >"$out/debian/control"
    found=$(cd "$out" && dpkg-shlibdeps -O stage/usr/bin/cutover 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    [ -z "$found" ] || depends=$found
    rm -rf "$out/debian"
fi
cat >"$stage/DEBIAN/control" <<END
Package: cutover
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Section: admin
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f1)
${depends:+Depends: $depends
}Recommends: tzdata, ca-certificates
Suggests: openssh-client
Description: bring applications from release to release, and back
 cutover brings a node from one release of an application to the next, watches
 the new one, and goes back by itself when it is sick: program files,
 configuration and data. It needs no server; several nodes agree through plain
 files in a shared directory.
END
cp packaging/debian/postinst packaging/debian/postrm "$stage/DEBIAN/"
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/postrm"
(cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"

package=$out/cutover_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" >/dev/null
rm -rf "$stage"
echo "$package"
