#!/bin/sh
# site.sh OUT: a site of the documentation, from docs/ and README.md as they are. Needs mdbook (`cargo install mdbook`).
set -eu
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && realpath "$1")
command -v mdbook >/dev/null || { echo "SKIPPED the site: no mdbook here (cargo install mdbook)" >&2; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src"
cp -r docs "$work/src/docs"
mkdir "$work/src/examples"
cp -r examples/ci "$work/src/examples/"
cp README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md "$work/src/"
chapter() { printf -- '- [%s](%s)\n' "$(sed -n 's/^# //p' "$1" | head -n 1)" "$1"; }
{
    echo '# Summary'
    echo '[cutover](README.md)'
    for name in health data rehearsal fleet publishing hooks systemd monitoring recipes migrating leaving troubleshooting; do
        chapter "docs/$name.md"
    done
    for name in security format format-fleet performance architecture; do chapter "docs/$name.md"; done
    for file in docs/decisions/*.md; do printf '  '; chapter "$file"; done
    chapter CHANGELOG.md
    chapter CONTRIBUTING.md
    chapter SECURITY.md
} >"$work/src/SUMMARY.md"
# What is in no chapter is not rendered, and links to it lead nowhere.
for file in docs/*.md docs/decisions/*.md; do
    grep -qF "($file)" "$work/src/SUMMARY.md" || { echo "error: the site has no chapter for $file" >&2; exit 1; }
done
cat >"$work/book.toml" <<END
[book]
title = "cutover"
src = "src"
[build]
build-dir = "$out"
create-missing = false
[output.html]
default-theme = "light"
preferred-dark-theme = "navy"
END
mdbook build "$work"
if command -v python3 >/dev/null; then python3 tests/site.py "$out"; fi
echo "$out/index.html"
