#!/bin/sh
# dist.sh TARGET [RUST-TARGET]: what is published, into TARGET/dist: an archive of the program with its manuals and units, a
# Debian package, an RPM where rpmbuild is there, and SHA256SUMS. The same source gives the same bytes: no paths, no times.
#
# A static program (…-linux-musl) runs on every Linux; without that target of Rust's the one of this machine is used, and
# said so: its program wants a C library that is as new as this machine's. For another kind of machine
# (`make dist DIST_TARGET=aarch64-unknown-linux-musl`) that target and its compiler are needed (Debian: gcc-aarch64-linux-gnu).
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
machine=${wanted%%-*}
if [ "$machine" != "$(uname -m)" ]; then
    compiler=$machine-linux-gnu-gcc
    command -v "$compiler" >/dev/null || { echo "dist: no $compiler here to build for $wanted" >&2; exit 1; }
    name=$(echo "$wanted" | tr - _)
    export "CC_$name=$compiler" "CARGO_TARGET_$(echo "$name" | tr '[:lower:]' '[:upper:]')_LINKER=$compiler"
else
    case $wanted in *-musl) export CC="${CC:-musl-gcc}" ;; esac
fi
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
    case $machine in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture= ;; esac
    PROFILE=release ARCHITECTURE=$architecture packaging/deb.sh "$stage/target" >/dev/null
    mv "$stage"/target/debian/*.deb "$out/"
else
    echo "dist: no dpkg-deb here: no Debian package" >&2
fi
if command -v rpmbuild >/dev/null; then
    packaging/rpm.sh "$stage/$name" "$version" "$out" "$machine"
else
    echo "dist: no rpmbuild here: no RPM" >&2
fi
rm -rf "$stage"
sums=$(cd "$out" && sha256sum -- *)
printf "%s\n" "$sums" >"$out/SHA256SUMS"
cat "$out/SHA256SUMS"
