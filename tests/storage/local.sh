#!/bin/sh
# The suite on a local directory.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
suite shared::
