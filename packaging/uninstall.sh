#!/bin/sh
# uninstall.sh DESTDIR PREFIX: removes what install.sh put in place. Applications, their releases, data and
# configuration (/etc/cutover) are left alone.
set -eu
root=$1$2
rm -f "$root/bin/cutover" "$root"/bin/cutover-board-etcd "$root"/bin/cutover-board-object \
    "$root"/share/man/man[1-8]/cutover*.[1-8] \
    "$root/share/bash-completion/completions/cutover" "$root/share/zsh/vendor-completions/_cutover" \
    "$root/share/fish/vendor_completions.d/cutover.fish" "$root"/lib/systemd/system/cutover*.service \
    "$root"/lib/systemd/system/cutover*.timer "$root"/lib/systemd/catalog/cutover.catalog \
    "$root"/lib/tmpfiles.d/cutover.conf
rm -rf "$root/share/doc/cutover" "$root/share/cutover"
