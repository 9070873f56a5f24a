"""packaging/ansible and packaging/cloud-init.yaml on real systemd nodes: what they stand for comes up, and is updated.

Files are used as they stand; only what their texts tell people to put in place of theirs is replaced: addresses and keys.
"""

import pathlib
import re
import subprocess
import sys

from guide import UNIT, greeting
from lab import Failed, Lab, call, eventually

PACKAGING = pathlib.Path("packaging")


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def publish(cutover, shop, work):
    """What a team has published: a key, a release, and a package with signed sums."""
    source, dist, build = work / "releases", work / "dist", work / "build"
    for directory in [source, dist, build / "bin", build / "etc"]:
        directory.mkdir(parents=True)
    call(cutover, "keygen", work / "team")
    call("install", "-m", "755", shop, build / "bin/shop")
    release(cutover, work, "1.0.0")
    return " ".join((work / "team.pub").read_text().split()[:2])


def release(cutover, work, version):
    (work / "build/etc/shop.conf").write_text(f"greeting = release {version}\n")
    archive = work / "releases" / f"shop-{version}.tar.zst"
    call(cutover, "pack", work / "build", "--product", "shop", "--version", version, "-o", archive)
    call(cutover, "publish", work / "releases", version, "--key", work / "team")


def equip(node, work):
    """What is on such a machine before: the unit, and the places that are reached."""
    node.copy(work / "releases", "/root/releases")
    node.copy(work / "dist", "/root/dist")
    node.copy(work / "build/bin/shop", "/root/build/bin/shop")
    node.write("/etc/systemd/system/shop.service", UNIT)
    node.write("/etc/apt/sources.list", "")


def with_ours(text, key):
    """A file of packaging's with the test's places and key in place of the example's."""
    text = re.sub(r'"https://example.org/cutover/[^"]*"', '"file:///root/dist"', text)
    text = text.replace("https://releases.example.org/shop", "file:///root/releases")
    return text.replace("ssh-ed25519 AAAA…", key)


def serves(node, version):
    eventually(f"release {version} answers: {greeting(node)}", 30, lambda: greeting(node) == f"release {version}")
    for unit in ["cutover@shop.timer", "cutover-recover@shop.service"]:
        node.call("systemctl", "is-enabled", unit)
    node.call("systemctl", "is-active", "cutover@shop.timer")


def ansible(node, work, key):
    """the Ansible role: package, key, settings, timers; run twice it changes nothing; a wrong setting stays out"""
    equip(node, work)
    node.boot()
    node.copy(PACKAGING / "ansible", "/root/ansible")
    package = next((work / "dist").glob("*.deb")).name
    play = with_ours((PACKAGING / "ansible/example.yml").read_text(), key)
    play = re.sub(r"cutover_package: .*", f"cutover_package: /root/dist/{package}", play)
    where = ["ansible-playbook", "-i", "localhost,", "-c", "local", "/root/ansible/play.yml"]

    def run(text):
        node.write("/root/ansible/play.yml", text)
        return node.run("env", "LC_ALL=C.UTF-8", "ANSIBLE_ROLES_PATH=/root/ansible", *where, timeout=120)

    code, told, said = run(play)
    check(code == 0, f"the play ends with {code}: {told[-1500:]}{said[-500:]}")
    node.call("cutover", "config", "check")
    code, told, said = run(play)
    check(code == 0 and re.search(r"changed=0 ", told), f"a second time: {code}: {told[-800:]}{said[-500:]}")
    node.call("cutover", "update", "--now")
    serves(node, "1.0.0")
    code, told, _ = run(play.replace('units = ["shop.service"]', 'unit = ["shop.service"]'))
    check(code != 0 and "unknown key" in told, f"a wrong key is taken: {code}: {told[-800:]}")
    node.call("cutover", "config", "check")


def cloud_init(node, work, key):
    """the cloud-init example: a node that boots for the first time serves a verified release, under its timer"""
    equip(node, work)
    node.copy(PACKAGING / "get.sh", "/usr/share/cutover-install/get.sh")
    node.write("/var/lib/cloud/seed/nocloud/meta-data", "instance-id: n2\n")
    node.write("/var/lib/cloud/seed/nocloud/user-data", with_ours((PACKAGING / "cloud-init.yaml").read_text(), key))
    node.write("/etc/cloud/cloud.cfg.d/90-test.cfg", "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n")
    node.boot()
    code, told, said = node.run("cloud-init", "status", "--wait", timeout=120)
    log = node.run("tail", "-n", "30", "/var/log/cloud-init-output.log")[1]
    check(code == 0 and "done" in told, f"cloud-init: {code}: {told}{said}{log}")
    serves(node, "1.0.0")
    trust = node.call("cutover", "status")
    check("signed by team" in trust, f"what runs was not verified: {trust}")


def main(image, name, package, cutover, shop):
    lab, failed = Lab(image, name), False
    try:
        work = pathlib.Path("/run/lab/published")
        key = publish(cutover, shop, work)
        call("cp", package, work / "dist")
        with open(work / "dist/SHA256SUMS", "w", encoding="ascii") as sums:
            subprocess.run(["sha256sum", pathlib.Path(package).name], cwd=work / "dist", stdout=sums, check=True)
        call(cutover, "sign", "--as", "release", work / "dist/SHA256SUMS", "--key", work / "team")
        for number, way in enumerate([ansible, cloud_init], 1):
            try:
                way(lab.node(f"n{number}", "ext4"), work, key)
                print(f"ok   {way.__doc__}", flush=True)
            except Failed as why:
                failed = True
                print(f"FAIL {way.__doc__}: {why}", flush=True)
    finally:
        lab.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
