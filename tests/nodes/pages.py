"""docs/publishing.md and docs/fleet.md, word by word on real systemd nodes.

Every command is read from its page. What a page leaves to the reader (`NODE`, `FROM`) is filled in; what cannot be here (a forge
with a name, an hour of waiting) is replaced, and said so. At the end nothing of the page may be left that nobody has typed, and
that is not named with the test that types it: a command that is added to a page fails here, until somebody runs it.
"""

import pathlib
import re
import sys

from lab import Failed, Lab

DOCS = pathlib.Path("docs")


def check(is_so, text):
    if not is_so:
        raise Failed(text)


class Page:
    """What one page has people type, and what of it was typed."""

    def __init__(self, name, elsewhere):
        self.name = name
        self.text = (DOCS / name).read_text()
        prose = re.sub(r"^```.*?^```", "", self.text, flags=re.S | re.M)
        self.told = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
        self.typed, self.elsewhere = [], elsewhere

    def block(self, heading, language, number=0):
        """A block of the section, as it stands."""
        part = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^## |\Z)", self.text, re.S | re.M)
        check(part, f"{self.name} has no section `{heading}`")
        return re.findall(rf"^```{language}\n(.*?)^```", part.group(1), re.S | re.M)[number]

    def lines(self, heading, number=0):
        """The commands of a block, without what is said of them."""
        lines = [line.split(" # ")[0].rstrip() for line in self.block(heading, "sh", number).splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    def span(self, start):
        """What stands in the text between backticks and begins so."""
        found = next((span for span in self.told if span.startswith(start)), None)
        check(found, f"{self.name} does not say `{start}…` any more")
        return found

    def type(self, node, line, expect=0, add="", **filled):
        """A command that stands in the page, with what the reader fills in, and with what is added to it."""
        check(line in self.told or line in self.text, f"{self.name} does not say `{line}`")
        self.typed.append(f"{line} {add}")
        for word, value in filled.items():
            check(word in line, f"`{line}` has no {word}")
            line = line.replace(word, value)
        line = f"{line} {add}".rstrip()
        code, told, said = node.run("sh", "-c", f"cd /root && {line}")
        print(f"    {node.name}$ {line}: {code}", flush=True)
        check(code == expect, f"`{line}` ended with {code}, not {expect}:\n{told[-1500:]}{said[-1500:]}")
        return told + said

    def close(self):
        """Nothing is left that nobody has typed. What other tests type is said, and they must be there."""
        typed = "\n".join(self.typed)
        left = []
        for span in dict.fromkeys(self.told):
            option = re.match(r"--[a-z-]+", span)
            if span.startswith("cutover ") and span not in typed or option and option.group() not in typed:
                where = self.elsewhere.get(span)
                if where is None:
                    left.append(span)
                    continue
                check(is_there(where), f"`{span}` of {self.name}: no {where}")
                print(f"    (not typed here: `{span}`: {where})", flush=True)
        check(not left, f"nobody types of {self.name}: {left}")


def is_there(where):
    """`FILE::FUNCTION`, a test; `FILE: TEXT`, what stands there; or a reason in words."""
    if "::" in where:
        file, function = where.split("::")
        return re.search(rf"(fn|def) {function}\b", pathlib.Path(file).read_text())
    file, _, text = where.partition(": ")
    return not text or text in pathlib.Path(file).read_text()


def instead(text):
    """What is not as the page says, and why."""
    print(f"    (instead: {text})", flush=True)


def prepare(node, cutover):
    """A node with the program, its units, and what signs."""
    node.copy(cutover, "/usr/bin/cutover")
    node.copy("/usr/bin/ssh-keygen", "/usr/bin/ssh-keygen")
    for unit in sorted(pathlib.Path("systemd").iterdir()):
        node.copy(unit, f"/usr/lib/systemd/system/{unit.name}")


def main(image, name, cutover, *words):
    # Each of them imports this.
    import pages_fleet
    import pages_publishing
    pages = {"publishing.md": pages_publishing, "fleet.md": pages_fleet}
    lab, failed = Lab(image, name), False
    try:
        for document, module in pages.items():
            if words and document not in words:
                continue
            print(f"{document}:", flush=True)
            page = Page(document, module.ELSEWHERE)
            try:
                module.run(lab, page, cutover)
                page.close()
                print(f"ok   {document}", flush=True)
            except Failed as why:
                failed = True
                print(f"FAIL {document}: {why}", flush=True)
    finally:
        lab.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
