"""Looks whether each link of a site of the documentation leads somewhere: `site.py DIRECTORY`."""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.names, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def main(directory):
    top = pathlib.Path(directory).resolve()
    # All pages in one, and the page for what is not there, have links of their own kinds.
    pages = {path: Page(path) for path in sorted(top.rglob("*.html")) if path.name not in ("print.html", "404.html", "toc.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            place = urllib.parse.urlsplit(link)
            if place.scheme or place.netloc or link.startswith("data:"):
                continue
            target = (path.parent / urllib.parse.unquote(place.path)).resolve() if place.path else path
            name = urllib.parse.unquote(place.fragment)
            if not target.exists() or name and target in pages and name not in pages[target].names:
                dead.append(f"{path.relative_to(top)}: {link}")
    for line in dead:
        print(f"error: it leads nowhere: {line}", file=sys.stderr)
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")
    return 1 if dead or not pages else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
