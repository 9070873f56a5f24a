"""The root file system of the nodes: a minimal Debian with systemd and the packages named, built once and kept."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

TOOLS = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs",
         "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "unshare": "util-linux", "ip": "iproute2"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ["systemd", "systemd-sysv", "dbus", "busybox-static", "btrfs-progs", "util-linux", "procps",
            "libfaketime"]
# Means nothing in a container, or would disturb a test.
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
          "e2scrub_reap.service", "fstrim.timer", "console-getty.service", "getty-static.service", "getty@.service",
          "systemd-firstboot.service", "systemd-networkd.service", "systemd-resolved.service",
          "systemd-modules-load.service", "dev-hugepages.mount", "systemd-pstore.service"]
APPLETS = ["wget", "vi", "less"]
RECIPE = 1          # raised whenever what follows changes


class CannotRun(Exception):
    """This machine lacks what nodes need."""


def suite():
    """The machine's own release of Debian, so that programs built here run there; a newer one runs them, too, and is asked
    for by CUTOVER_NODES_SUITE."""
    if "CUTOVER_NODES_SUITE" in os.environ:
        return os.environ["CUTOVER_NODES_SUITE"]
    facts = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
    if facts.get("ID") == "debian" and "VERSION_CODENAME" in facts:
        return facts["VERSION_CODENAME"].strip('"')
    return "bookworm"


def ensure_tools():
    missing = {package for tool, package in TOOLS.items() if not shutil.which(tool)}
    if not os.path.exists(KEYRING):
        missing.add("debian-archive-keyring")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise CannotRun("missing: " + ", ".join(sorted(missing)))
    print("installing", *sorted(missing), flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "-qq", "update"], env=environment, stdout=subprocess.DEVNULL)
    command = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *sorted(missing)]
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:
        raise CannotRun("apt-get cannot install " + ", ".join(sorted(missing)))


def ensure(more=()):
    """The directory of the image with these packages more, built if it is not there yet."""
    packages = PACKAGES + sorted(more)
    key = hashlib.sha256(repr((suite(), packages, MASKED, APPLETS, RECIPE)).encode()).hexdigest()[:12]
    base = pathlib.Path(os.environ.get("CUTOVER_NODES_CACHE", "/var/cache/cutover-nodes"))
    image = base / f"{suite()}-{key}"
    if image.is_dir():
        return image
    base.mkdir(parents=True, exist_ok=True)
    private = base / f"{image.name}.new"
    shutil.rmtree(private, ignore_errors=True)
    print(f"building the nodes' root file system ({suite()}), once", flush=True)
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + ",".join(packages),
               '--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"',
               "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
               "--dpkgopt=path-exclude=/usr/share/locale/*", suite(), str(private)]
    built = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if built.returncode:
        raise CannotRun("mmdebstrap: " + (built.stderr.strip().splitlines() or ["no word"])[-1])
    finish(private)
    private.rename(image)
    return image


def finish(root):
    units = root / "etc/systemd/system"
    for unit in MASKED:
        link = units / unit
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to("/dev/null")
        for wants in units.glob(f"*.wants/{unit}"):
            wants.unlink()
    for name, text in {
        "etc/systemd/journald.conf.d/nodes.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
        "etc/systemd/system.conf.d/nodes.conf": "[Manager]\nShowStatus=no\n",
        "etc/fstab": "", "etc/resolv.conf": "", "etc/hosts": "127.0.0.1 localhost\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    for name in ["etc/hostname", "etc/machine-id", "var/lib/dbus/machine-id"]:
        (root / name).unlink(missing_ok=True)
    for name in ["srv", "var/log/journal"]:
        (root / name).mkdir(exist_ok=True)
    for applet in APPLETS:
        if not (root / "usr/bin" / applet).exists():
            (root / "usr/local/bin" / applet).symlink_to("/usr/bin/busybox")


if __name__ == "__main__":
    try:
        ensure_tools()
        print(ensure(sys.argv[1:]))
    except CannotRun as why:
        sys.exit(f"SKIPPED nodes: {why}")
