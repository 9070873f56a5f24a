#!/bin/sh
# generate.sh DIRECTORY: manual pages and completions.
set -eu
cd "$(dirname "$0")/.."
exec "${CARGO:-cargo}" run --quiet --locked --example manual -- "$1"
