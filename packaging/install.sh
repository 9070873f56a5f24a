#!/bin/sh
# install.sh TARGET DESTDIR PREFIX: puts the program and what belongs to it in place. Starts and enables nothing.
# PROFILE names the profile that the program was built with (release).
set -eu
cd "$(dirname "$0")/.."
target=$1 destdir=$2 prefix=$3
root=$destdir$prefix
built=${PROFILE:-release}
[ "$built" != dev ] || built=debug

install -D -m 755 "$target/$built/cutover" "$root/bin/cutover"
for page in "$target"/generated/man/*.[1-8]; do
    install -D -m 644 "$page" "$root/share/man/man${page##*.}/$(basename "$page")"
done
install -D -m 644 "$target/generated/completions/cutover.bash" "$root/share/bash-completion/completions/cutover"
install -D -m 644 "$target/generated/completions/_cutover" "$root/share/zsh/vendor-completions/_cutover"
install -D -m 644 "$target/generated/completions/cutover.fish" "$root/share/fish/vendor_completions.d/cutover.fish"
for unit in systemd/*; do
    case $unit in
    *.service | *.timer | *.slice | *.target | *.path)
        install -d "$root/lib/systemd/system"
        # Units name the program by its path.
        sed "s|/usr/bin/cutover|$prefix/bin/cutover|g" "$unit" >"$root/lib/systemd/system/$(basename "$unit")"
        chmod 644 "$root/lib/systemd/system/$(basename "$unit")"
        ;;
    *.catalog) install -D -m 644 "$unit" "$root/lib/systemd/catalog/$(basename "$unit")" ;;
    *.conf) install -D -m 644 "$unit" "$root/lib/tmpfiles.d/$(basename "$unit")" ;;
    esac
done
install -D -m 644 packaging/shop.toml "$root/share/doc/cutover/examples/shop.toml"
install -D -m 755 packaging/web-hook "$root/share/doc/cutover/examples/web-hook"
for document in README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs/*.md docs/decisions/*.md docs/images/*; do
    install -D -m 644 "$document" "$root/share/doc/cutover/$document"
done
# Documents lead to these by their places in the tree.
for file in examples/ci/*; do
    mode=644
    [ ! -x "$file" ] || mode=755
    install -D -m "$mode" "$file" "$root/share/doc/cutover/$file"
done
for schema in status progress; do
    install -D -m 644 "docs/$schema.schema.json" "$root/share/cutover/$schema.schema.json"
done
install -D -m 644 "$target/generated/cutover.schema.json" "$root/share/cutover/cutover.schema.json"
for file in cutover.rules.yml cutover.test.yml grafana-dashboard.json; do
    install -D -m 644 "packaging/prometheus/$file" "$root/share/doc/cutover/prometheus/$file"
done
install -d -m 755 "$destdir/etc/cutover/keys"
