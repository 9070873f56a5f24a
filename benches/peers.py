"""The tools that stage releases, each with what it needs beforehand and the jobs that are measured."""
import os
import subprocess

from fs import Mounted, sh

LEVEL = "9"
# A user's store needs no build users, and nobody's configuration.
NIX = "NIX_REMOTE= NIX_CONF_DIR=/nonexistent NIX_CONFIG='build-users-group =' NIX_STATE_DIR=/tmp/nix-state"


def forget(*kept):
    """Drops what the kernel has cached of files, and reads those again that lie elsewhere for a tool that has them at hand."""
    sh("sync; echo 3 > /proc/sys/vm/drop_caches")
    for tree in kept:
        sh(f"tar -C {tree} -c . | wc -c", stdout=subprocess.DEVNULL)


class Cutover:
    """Packs on a base; stages each release into one root. `name` is the tool's: an older build is a tool of its own."""

    def __init__(self, program, name):
        self.program, self.name = program, name

    def prepare(self, inputs, store, releases):
        base = ""
        for name in releases:
            archive = f"{store}/{self.name}-{name}.tar.zst"
            if not os.path.exists(archive):
                sh(f"{self.program} pack {inputs}/{name} --product shop --version {name} -o {archive} --level {LEVEL} {base}",
                   stdout=subprocess.DEVNULL)
            base = f"--base {store}/{self.name}-old.tar.zst"
        self.store = store

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/{self.name}"
        os.makedirs(root)
        run = f"{self.program} --root {root} -q"
        for name in releases:
            yield name, f"{run} stage --allow-unsigned {self.store}/{self.name}-{name}.tar.zst"
        # As the service does when it starts; the second time shows what the first one found in memory.
        for time in ("first read", "second read"):
            yield time, f"tar -C {root}/releases/{releases[-1]} -c . | wc -c"
        yield "verify", f"{run} verify {releases[0]}"
        forget()
        yield "cold verify", f"{run} verify {releases[0]}"
        # A release that ran, one that went before it, and one that nobody needs.
        settings = f"{mounted.path}/app.toml"
        with open(settings, "w") as file:
            file.write(f"root = '{root}'\n[store]\nkeep = 1\n[source]\nurl = '{self.store}'\n")
        for name in releases:
            sh(f"{run} switch --now {name}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield "remove", f"{self.program} --config {settings} -q prune"


class CutoverTar:
    """The first install from the plain tar.zst that tar gets."""

    def __init__(self, program):
        self.program = program

    def prepare(self, inputs, store, releases):
        self.store = store
        Tar(("tar", "")).prepare(inputs, store, releases[:1])

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/cutover-tar"
        os.makedirs(root)
        yield releases[0], (f"{self.program} --root {root} -q stage --allow-unsigned --version {releases[0]} "
                            f"{self.store}/plain-{releases[0]}.tar.zst")


class Tar:
    """A plain tar.zst of the same level, unpacked whole each time."""

    def __init__(self, unpack):
        self.unpack = unpack

    def prepare(self, inputs, store, releases):
        self.store = store
        for name in releases:
            archive = f"{store}/plain-{name}.tar.zst"
            if not os.path.exists(archive):
                sh(f"tar --sort=name -C {inputs}/{name} -c . | zstd -q -{LEVEL} -T0 > {archive}")

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/{self.unpack[0]}"
        for name in releases:
            unpack = self.unpack[1].format(archive=f"{self.store}/plain-{name}.tar.zst", root=f"{root}/{name}")
            yield name, f"mkdir -p {root}/{name}; {unpack}"
        yield "remove", f"rm -rf {root}/{releases[-1]}"


class Rsync:
    """Links what did not change since the tree before."""

    def prepare(self, inputs, store, releases):
        self.inputs = inputs

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/rsync"
        os.makedirs(root)
        for name in releases:
            link = "" if name == releases[0] else f"--link-dest={root}/{releases[0]}"
            yield name, f"rsync -a {link} {self.inputs}/{name}/ {root}/{name}/"
        verify = f"rsync -anc {self.inputs}/{releases[0]}/ {root}/{releases[0]}/"
        yield "verify", verify
        forget(f"{self.inputs}/{releases[0]}")
        yield "cold verify", verify
        yield "remove", f"rm -rf {root}/{releases[-1]}"


class Ostree:
    """pull-local from a repository for many, then a checkout of hard links; without an fsync for each object."""

    def prepare(self, inputs, store, releases):
        self.remote = f"{store}/ostree"
        if not os.path.exists(self.remote):
            sh(f"ostree --repo={self.remote} init --mode=archive", stdout=subprocess.DEVNULL)
            for name in releases:
                sh(f"ostree --repo={self.remote} commit -b {name} --tree=dir={inputs}/{name}", stdout=subprocess.DEVNULL)

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/ostree"
        os.makedirs(root)
        sh(f"ostree --repo={root}/repo init --mode=bare; ostree --repo={root}/repo config set core.fsync false",
           stdout=subprocess.DEVNULL)
        for name in releases:
            yield name, (f"ostree --repo={root}/repo pull-local {self.remote} {name};"
                         f"ostree --repo={root}/repo checkout -H {name} {root}/{name}")
        yield "verify", f"ostree --repo={root}/repo fsck"
        forget()
        yield "cold verify", f"ostree --repo={root}/repo fsck"
        yield "remove", (f"rm -rf {root}/{releases[-1]}; ostree --repo={root}/repo refs --delete {releases[-1]};"
                         f"ostree --repo={root}/repo prune --refs-only")


class Casync:
    """Chunks, with the tree before as the seed."""

    def prepare(self, inputs, store, releases):
        self.store = f"{store}/casync"
        os.makedirs(self.store, exist_ok=True)
        for name in releases:
            index = f"{self.store}/{name}.caidx"
            if not os.path.exists(index):
                sh(f"casync make --with=unix {index} {inputs}/{name} --store={self.store}/chunks", stdout=subprocess.DEVNULL)

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/casync"
        os.makedirs(root)
        for name in releases:
            seed = "" if name == releases[0] else f"--seed={root}/{releases[0]}"
            yield name, f"casync extract --with=unix {seed} {self.store}/{name}.caidx {root}/{name} --store={self.store}/chunks"
        yield "remove", f"rm -rf {root}/{releases[-1]}"


class Nix:
    """A store of its own, filled from a binary cache of zstd archives; each release is one path."""

    def prepare(self, inputs, store, releases):
        self.cache = f"{store}/nix"
        self.paths = f"{store}/nix-paths"
        if os.path.exists(self.paths):
            return
        os.makedirs(self.cache, exist_ok=True)
        seed = f"{store}/nix-seed"
        with open(f"{self.paths}.new", "w") as file:
            for name in releases:
                add = f"nix-store --store 'local?root={seed}' --add {inputs}/{name}"
                path = sh(f"{NIX} {add}", capture_output=True, text=True).stdout.strip()
                sh(f"{NIX} nix --extra-experimental-features nix-command copy --no-check-sigs --from 'local?root={seed}' "
                   f"--to 'file://{self.cache}?compression=zstd&parallel-compression=true' {path}")
                file.write(f"{path}\n")
        sh(f"chmod -R u+w {seed}; rm -rf {seed}")
        os.rename(f"{self.paths}.new", self.paths)

    def jobs(self, mounted, releases):
        with open(self.paths) as file:
            paths = file.read().split()
        store = f"'local?root={mounted.path}/nix'"
        for name, path in zip(releases, paths):
            yield name, (f"{NIX} nix --extra-experimental-features nix-command copy --no-check-sigs "
                         f"--from 'file://{self.cache}' --to {store} {path}")
        verify = f"{NIX} nix-store --store {store} --verify-path {paths[0]}"
        yield "verify", verify
        forget()
        yield "cold verify", verify
        yield "remove", f"{NIX} nix-store --store {store} --delete {paths[-1]}"


class Btrfs:
    """Streams of `btrfs send`, the later ones with the first release as their parent; on btrfs only."""

    def prepare(self, inputs, store, releases):
        self.store = store
        if os.path.exists(f"{store}/send-{releases[-1]}.zst"):
            return
        first = releases[0]
        with Mounted("btrfs", f"{store}/sending", 8 << 30) as mounted:
            for name in releases:
                tree = f"{mounted.path}/{name}"
                begin = f"create {tree}" if name == first else f"snapshot {mounted.path}/{first} {tree}"
                parent = "" if name == first else f"-p {mounted.path}/{first}"
                sh(f"btrfs subvolume {begin}; rsync -a --delete {inputs}/{name}/ {tree}/;"
                   f"btrfs property set {tree} ro true; sync -f {tree};"
                   f"btrfs send -q {parent} {tree} | zstd -q -{LEVEL} -T0 > {store}/send-{name}.zst",
                   stdout=subprocess.DEVNULL)

    def jobs(self, mounted, releases):
        if mounted.kind != "btrfs":
            return
        root = f"{mounted.path}/btrfs"
        os.makedirs(root)
        for name in releases:
            yield name, f"zstd -dcq {self.store}/send-{name}.zst | btrfs receive -q {root}"
        yield "remove", f"btrfs subvolume delete {root}/{releases[-1]}"


def tools(program, before):
    return {
        "cutover": Cutover(program, "cutover"),
        "before": Cutover(before, "before"),
        "cutover-tar": CutoverTar(program),
        "tar": Tar(("tar", "zstd -dcq {archive} | tar -xp -C {root}")),
        "bsdtar": Tar(("bsdtar", "bsdtar --zstd -xpf {archive} -C {root}")),
        "rsync": Rsync(),
        "ostree": Ostree(),
        "casync": Casync(),
        "nix": Nix(),
        "btrfs": Btrfs(),
    }
