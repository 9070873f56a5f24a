"""Real nodes on one machine: containers with systemd as PID 1, each with a file system of its own on /srv.

Everything lives in namespaces that end with this process: whatever kills it, the kernel removes nodes, mounts and
loop devices. What is left then, empty control groups, is removed by `run`.

    root    overlay over the image, kept over crashes        /srv   ext4, xfs or btrfs on a loop device, likewise
    crash   SIGKILL for all processes of a node at once      files  copied from and to `node.root` and `node.srv`
    /shared one directory for all, through a mount of each node's own that hangs or fails on command
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

WORK = pathlib.Path("/run/lab")
CGROUPS = pathlib.Path("/sys/fs/cgroup")
REBOOT = 133                            # systemd-nspawn --keep-unit: "start me again"
BOOT_SECONDS = 60
DOWN_SECONDS = 30
SIGRTMIN = int(signal.SIGRTMIN)


class Failed(AssertionError):
    """A node does not do what it should."""


def call(*command, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def eventually(what, seconds, attempt):
    """The first true value of `attempt`; fails with the last thing seen."""
    end = time.monotonic() + seconds
    while True:
        seen = attempt()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Lab:
    """The namespaces' own set-up: once, by the process that `unshare` has started."""

    def __init__(self, image, name):
        self.image, self.name = pathlib.Path(image), name
        call("mount", "--make-rprivate", "/")
        call("mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run")
        # A node's systemd-nspawn has a copy of our mounts: what is unmounted here must go there too.
        call("mount", "--make-rshared", "/")
        WORK.mkdir()
        call("mount", "-t", "tmpfs", "-o", "mode=755,size=80%", "store", WORK)
        # Nodes see a pure cgroup2 hierarchy, whatever this machine has.
        if call("stat", "-f", "-c", "%T", CGROUPS).strip() != "cgroup2fs":
            call("mount", "-t", "cgroup2", "cgroup2", CGROUPS)
        call("ip", "link", "set", "lo", "up")
        self.group = CGROUPS / name
        self.group.mkdir(exist_ok=True)
        self.share = WORK / "share"
        self.nodes = []

    def node(self, name, kind, size="1G", is_sharing=False):
        node = Node(self, name, kind, size)
        if is_sharing:
            self.share.mkdir(exist_ok=True)
            node.mount_share()
        self.nodes.append(node)
        return node

    def drop(self, node):
        """The node ends, and all that was its own goes."""
        self.nodes.remove(node)
        try:
            node.crash()
        except Failed as error:
            print(f"(left running: {error})", flush=True)
            return
        node.unmount()
        shutil.rmtree(node.files, ignore_errors=True)

    def end(self):
        for node in self.nodes:
            node.crash()
        for node in self.nodes:
            node.unmount()


class Node:
    """One machine."""

    def __init__(self, lab, name, kind, size):
        self.lab, self.name, self.kind = lab, name, kind
        self.files = WORK / name
        self.root, self.srv = self.files / "root", self.files / "srv"
        self.group = lab.group / name
        self.machine_id = os.urandom(16).hex()
        self.leader, self.process, self.watcher = None, None, None
        self.is_crashing, self.boots = False, 0
        self.server = None
        self.ready = threading.Condition()
        self.is_ready = False
        for directory in ["upper/etc", "work", "root", "srv"]:
            (self.files / directory).mkdir(parents=True)
        self.upper = self.files / "upper"
        for path, text in {"etc/hostname": name, "etc/machine-id": self.machine_id}.items():
            (self.upper / path).write_text(text + "\n")
        # The stamps say that nothing waits for a first boot.
        (self.upper / "etc/.updated").touch()
        disk = self.files / "disk"
        with open(disk, "xb") as file:
            file.truncate(int(size[:-1]) << 30)
        make = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"],
                "btrfs": ["mkfs.btrfs", "-q", "-f"]}[kind]
        call(*make, disk)
        call("mount", "-t", "overlay", "-o",
             f"lowerdir={lab.image},upperdir={self.upper},workdir={self.files}/work", name, self.root)
        call("mount", "-t", kind, "-o", "loop", disk, self.srv)

    # -- life

    def boot(self):
        self.start()
        self.await_boot()

    def start(self):
        """Begins to boot."""
        self.is_crashing, self.is_ready = False, False
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def await_boot(self):
        """Waits until all units that belong to the boot were started."""
        with self.ready:
            if not self.ready.wait_for(lambda: self.is_ready or not self.watcher.is_alive(), BOOT_SECONDS):
                raise Failed(f"{self.name} does not boot: {self.console()}")
        if not self.is_ready:
            raise Failed(f"{self.name} has ended: {self.console()}")

    def await_leader(self):
        """Waits until the node's systemd runs."""
        eventually(f"{self.name} has a PID 1", BOOT_SECONDS, lambda: self.leader)

    def console(self):
        path = self.files / "console"
        return path.read_text(errors="replace")[-1500:] if path.exists() else ""

    def _watch(self):
        while self._boot_once() == REBOOT and not self.is_crashing:
            self.is_ready = False
        with self.ready:
            self.ready.notify_all()

    def _boot_once(self):
        self.boots += 1
        self._empty_group()
        self.group.mkdir(exist_ok=True)
        notify = self.files / "notify"
        notify.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(str(notify))
        listener.settimeout(0.2)
        command = ["systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--settings=no",
                   f"--directory={self.root}", f"--machine={self.name}", f"--uuid={self.machine_id}",
                   "--private-network", "--system-call-filter=bpf", "--notify-ready=yes", "--link-journal=no",
                   "--resolv-conf=off", "--timezone=off", "--console=read-only", f"--bind={self.srv}:/srv",
                   *([f"--bind={self.files}/mount:/shared"] if self.server else []), "--boot"]
        script = f'echo 0 >{self.group}/cgroup.procs && exec "$@"'
        with open(self.files / "console", "ab") as console:
            self.process = subprocess.Popen(
                ["sh", "-c", script, "sh", *command], stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True, env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(notify)})
        if self.is_crashing:
            self._kill()
        with listener:
            while True:
                try:
                    text = listener.recv(4096).decode(errors="replace")
                except TimeoutError:
                    text = ""
                for name, _, value in (line.partition("=") for line in text.split("\n")):
                    if name == "X_NSPAWN_LEADER_PID":
                        self.leader = int(value)
                    elif (name, value) == ("READY", "1"):
                        with self.ready:
                            self.is_ready = True
                            self.ready.notify_all()
                if self.process.poll() is not None:
                    self.leader = None
                    return self.process.returncode

    def _kill(self):
        if (self.group / "cgroup.kill").exists():
            (self.group / "cgroup.kill").write_text("1")

    def _empty_group(self):
        def is_gone():
            for directory, _, _ in os.walk(self.group, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    return False
            return True
        eventually(f"the processes of {self.name} are gone", 20, is_gone)

    def crash(self):
        """All processes end at one instant, nothing is told or synced."""
        if not self.watcher or not self.watcher.is_alive():
            return
        self.is_crashing = True
        freeze = self.group / "cgroup.freeze"
        if freeze.exists():
            freeze.write_text("1")
        self._kill()
        self.watcher.join(30)
        if self.watcher.is_alive():
            raise Failed(f"{self.name} does not die")
        self.leader = None

    def reboot(self):
        """Cleanly. How long it took to go down, in seconds."""
        before, began = self.boots, time.monotonic()
        os.kill(self.leader, SIGRTMIN + 5)
        eventually(f"{self.name} goes down", DOWN_SECONDS, lambda: self.boots > before)
        took = time.monotonic() - began
        eventually(f"{self.name} boots", BOOT_SECONDS, lambda: self.is_ready)
        return took

    def unmount(self):
        if self.server:
            self.server.kill()
        for path in [self.root, self.srv, *([self.files / "mount"] if self.server else [])]:
            subprocess.run(["umount", "--lazy", str(path)], stdin=subprocess.DEVNULL)

    # -- the shared directory

    def mount_share(self):
        (self.files / "mount").mkdir()
        program = pathlib.Path(__file__).with_name("share.py")
        command = [sys.executable, program, self.lab.share, self.files / "mount", self.files / "mode"]
        self.server = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, text=True)
        if self.server.stdout.readline() != "mounted\n":
            raise Failed(f"{self.name}: the shared directory cannot be mounted")

    def cut_off(self, how="hang"):
        """From now on the shared directory hangs, or every call fails with this error."""
        if how == "hang":
            self.server.send_signal(signal.SIGSTOP)
        else:
            (self.files / "mode").write_text(how)

    def join(self):
        """The shared directory is back."""
        (self.files / "mode").write_text("")
        self.server.send_signal(signal.SIGCONT)

    # -- commands

    def enter(self, *command):
        """The words that run a command in the node."""
        if not self.leader:
            raise Failed(f"{self.name} does not run: {self.console()}")
        # Into a group of the node's own: else the node's end would not be the command's.
        script = f'echo 0 >{self.group}/cgroup.procs 2>/dev/null || echo 0 >{self.group}/payload/init.scope/cgroup.procs' \
                 '; exec "$@"'
        # A shell waits for the command, not nsenter(1), which stands still with its child and is not continued with it:
        # a node that goes down stops all of its processes for a moment, and would wait for one that nobody reaps.
        inside = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                  "--wdns=/", "--no-fork", "env", "-i",
                  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                  "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "sh", "-c", '"$@"; exit $?', "sh"]
        return ["sh", "-c", script, "sh", *inside, *map(str, command)]

    def spawn(self, *command, **options):
        return subprocess.Popen(self.enter(*command), stdin=subprocess.DEVNULL, text=True, errors="replace",
                                **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options})

    def run(self, *command, timeout=120):
        """Status, standard output and standard error."""
        done = subprocess.run(self.enter(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=timeout)
        return done.returncode, done.stdout, done.stderr

    def call(self, *command, timeout=120):
        """Standard output of a command that must succeed."""
        status, output, errors = self.run(*command, timeout=timeout)
        if status:
            raise Failed(f"{self.name}: {' '.join(map(str, command))}: status {status}: {errors.strip()[-800:]}"
                         f"{output.strip()[-400:]}")
        return output

    def write(self, path, text, mode=0o644):
        """A file of the node, which runs or not. Paths under /srv are on its data disk."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def copy(self, source, path):
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if pathlib.Path(source).is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)

    def path(self, path):
        """Where a path of the node is, seen from here."""
        path = pathlib.PurePosixPath(path)
        if path.is_relative_to("/srv"):
            return self.srv / path.relative_to("/srv")
        return self.root / path.relative_to("/")
