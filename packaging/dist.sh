#!/bin/sh
# dist.sh TARGET [RUST-TARGET]: what is published, into TARGET/dist: an archive of the program with its manuals and units, a
# Debian package, an RPM where rpmbuild is there, and SHA256SUMS. The same source gives the same bytes: no paths, no times.
#
# A static program (…-linux-musl) runs on every Linux; without that target of Rust's the one of this machine is used, and
# said so: its program wants a C library that is as new as this machine's.
set -eu
cd "$(dirname "$0")/.."
target=$1
host=$(rustc -vV | sed -n 's/^host: //p')
wanted=${2:-$(uname -m)-unknown-linux-musl}
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$wanted" ]; then
    echo "dist: no Rust target $wanted here (\`rustup target add $wanted\`): built for $host, not static" >&2
    wanted=$host
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
out=$target/dist
rm -rf "$out"
mkdir -p "$out"

# Where it was built must not show in what was built.
RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=/cutover --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export RUSTFLAGS
case $wanted in *-musl) export CC="${CC:-musl-gcc}" ;; esac
cargo build --release --locked -p cutover --target "$wanted"
unset RUSTFLAGS CC
packaging/generate.sh "$target/generated"

# install.sh takes the program from TARGET/release.
stage=$out/stage
mkdir -p "$stage/target/release"
cp "$target/$wanted/release/cutover" "$stage/target/release/cutover"
cp -r "$target/generated" "$stage/target/generated"

name=cutover-$version-$wanted
PROFILE=release packaging/install.sh "$stage/target" "$stage/$name" /usr
archive() { tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$1" -cf - "$2"; }
archive "$stage" "$name" | gzip -9n >"$out/$name.tar.gz"

if command -v dpkg-deb >/dev/null; then
    PROFILE=release packaging/deb.sh "$stage/target" >/dev/null
    mv "$stage"/target/debian/*.deb "$out/"
else
    echo "dist: no dpkg-deb here: no Debian package" >&2
fi
if command -v rpmbuild >/dev/null; then
    packaging/rpm.sh "$stage/$name" "$version" "$out"
else
    echo "dist: no rpmbuild here: no RPM" >&2
fi
rm -rf "$stage"
sums=$(cd "$out" && sha256sum -- *)
printf "%s\n" "$sums" >"$out/SHA256SUMS"
cat "$out/SHA256SUMS"
