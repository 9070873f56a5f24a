"""README's ten-minute guide, word by word, on a real systemd node with the Debian package installed.

Every block of code in the guide is used: the settings are written to the file that the text names, the commands are
run one by one. A command whose comment says `exit code N` must end so; all others must end with 0.
"""

import pathlib
import re
import sys

from lab import Failed, Lab, eventually

UNIT = """
[Unit]
Description=The shop
[Service]
ExecStart=/srv/shop/current/bin/shop serve --port 8080 --data /srv/data
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""


def steps(readme):
    """The guide's steps: number -> blocks of (language, text)."""
    guide = readme.split("## Ten minutes")[1].split("\n## ")[0]
    found = {}
    for part in re.split(r"\n(?=\*\*\d+\. )", guide)[1:]:
        number = int(re.match(r"\*\*(\d+)\. ", part).group(1))
        found[number] = re.findall(r"```(\w+)\n(.*?)```", part, re.S)
    return found


def install(node, package, shop):
    """The package, and an application that somebody has installed by hand."""
    node.copy(package, "/root/cutover.deb")
    node.call("dpkg", "--install", "--force-depends", "/root/cutover.deb")
    for tree in ["/srv/shop/current", "/root/build"]:
        node.call("mkdir", "-p", f"{tree}/bin", f"{tree}/etc")
        node.copy(shop, f"{tree}/bin/shop")
        node.call("chmod", "755", f"{tree}/bin/shop")
    node.write("/srv/shop/current/etc/shop.conf", "greeting = made by hand\n")
    node.write("/etc/systemd/system/shop.service", UNIT)
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "enable", "--now", "shop.service")
    eventually("the shop answers", 10, lambda: greeting(node) == "made by hand")


def greeting(node):
    code, said = node.run("/root/build/bin/shop", "get", "http://127.0.0.1:8080/")[:2]
    return said.split(" (")[0].strip() if code == 0 else None


def run_step(node, number, blocks):
    for language, text in blocks:
        if language == "toml":
            node.write("/etc/cutover/shop.toml", text)
            continue
        for line in filter(None, text.splitlines()):
            promised = re.search(r"exit code (\d+)", line)
            wanted = int(promised.group(1)) if promised else 0
            code, told, said = node.run("sh", "-c", f"cd /root && {line}")
            print(f"  {number}. {line.split('#')[0].strip()}: {code}", flush=True)
            if code != wanted:
                raise Failed(f"step {number}: `{line}` ended with {code}, not {wanted}:\n{told}{said}")


def main(image, name, package, shop):
    readme = pathlib.Path("README.md").read_text()
    guide = steps(readme)
    if sorted(guide) != list(range(1, 8)):
        raise Failed(f"the guide has the steps {sorted(guide)}")
    lab = Lab(image, name)
    try:
        node = lab.node("n1", "ext4")
        node.boot()
        install(node, package, shop)
        for number in sorted(guide):
            if number == 4:
                node.write("/root/build/etc/shop.conf", "greeting = release 1.1.0\n")
            if number == 6:
                node.write("/root/build/etc/shop.conf", "greeting = release 1.2.0\nsick_after = 0\n")
            run_step(node, number, guide[number])
            if number in (5, 6) and greeting(node) != "release 1.1.0":
                raise Failed(f"after step {number} the shop says {greeting(node)}")
        node.call("systemctl", "is-enabled", "cutover@shop.timer", "cutover-recover@shop.service")
    finally:
        lab.end()
    print("the guide works")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Failed as failed:
        sys.exit(f"FAILED: {failed}")
