#!/bin/sh
# From a directory that was built to a release that nodes install: packed, signed, brought to where nodes read it.
# For any CI; run it as the last step, with these variables:
#
#   TREE          the directory that was built                                      build/
#   PRODUCT       the product's name                                                shop
#   VERSION       the release's version; never used twice                           1.4.2
#   TO            where nodes read: oci://…, s3://…, gs://…, https://…, a directory  oci://ghcr.io/acme/shop
#   KEY           the private key: a file, or the key itself (a secret of the CI)
#   CREDENTIALS   for TO: a file, or `user:password` or a token itself; optional
#   CHANNEL       the channel to move to this release; `stable` without it
#   EXPIRES       how long the channel holds; 30 days without it
#   PERCENT       the part of the nodes that may switch at first; all without it
#
# The previous release is fetched first, so that what has not changed stays where it was in the archive: a node then
# fetches one short range. What fails before the channel is replaced has changed nothing for any node; run it again.
set -eu
: "${TREE:?}" "${PRODUCT:?}" "${VERSION:?}" "${TO:?}" "${KEY:?}"
channel=${CHANNEL:-stable}
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/releases" "$work/before"

# secret VALUE FILE: says the file that holds a secret
secret() {
    if [ -f "$1" ]; then
        printf '%s' "$1"
    else
        printf '%s\n' "$(printf '%s' "$1")" >"$work/$2"
        printf '%s' "$work/$2"
    fi
}
key=$(secret "$KEY" key)
set -- --to "$TO"
from=
if [ -n "${CREDENTIALS-}" ]; then
    credentials=$(secret "$CREDENTIALS" credentials)
    set -- "$@" --credentials "$credentials"
    from="--from-credentials=$credentials"
fi
[ -z "${PERCENT-}" ] || set -- "$@" --percent "$PERCENT"

# The first release has none before it.
base=
if cutover copy "$TO" "$work/before" --channel "$channel" ${from:+"$from"} >"$work/copy.log" 2>&1; then
    base=$(find "$work/before" -name '*.tar.zst' | head -n 1)
elif ! grep -q 'is not there' "$work/copy.log"; then
    cat "$work/copy.log" >&2
    exit 1
fi

cutover pack "$TREE" --product "$PRODUCT" --version "$VERSION" ${base:+--base "$base"} \
    -o "$work/releases/$PRODUCT-$VERSION.tar.zst"
cutover publish "$work/releases" "$VERSION" --product "$PRODUCT" --channel "$channel" --key "$key" \
    --expires "${EXPIRES:-30d}" "$@"
