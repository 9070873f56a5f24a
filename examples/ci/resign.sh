#!/bin/sh
# Signs the channel anew before it expires; nothing else changes. For a timer, or a scheduled pipeline, once a week.
# TO, PRODUCT, KEY, CREDENTIALS, CHANNEL and EXPIRES as in publish.sh.
set -eu
: "${PRODUCT:?}" "${TO:?}" "${KEY:?}"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
secret() {
    if [ -f "$1" ]; then printf '%s' "$1"; else printf '%s\n' "$(printf '%s' "$1")" >"$work/$2" && printf '%s' "$work/$2"; fi
}
key=$(secret "$KEY" key)
channel=${CHANNEL:-stable}
set -- --to "$TO"
from=
if [ -n "${CREDENTIALS-}" ]; then
    credentials=$(secret "$CREDENTIALS" credentials)
    set -- "$@" --credentials "$credentials"
    from="--from-credentials=$credentials"
fi
mkdir "$work/releases"
cutover copy "$TO" "$work/releases" --channel "$channel" ${from:+"$from"}
cutover publish "$work/releases" --product "$PRODUCT" --channel "$channel" --key "$key" \
    --expires "${EXPIRES:-30d}" "$@"
