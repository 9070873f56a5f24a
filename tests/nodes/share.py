"""One node's mount of the fleet's shared directory: a small FUSE file system that passes everything on to a common
directory, caches nothing, and fails when it is told to. `python3 share.py COMMON MOUNTPOINT MODE` serves one mount.

    hang       SIGSTOP: whoever touches the mount waits; SIGCONT ends it, as a server that comes back
    failures   the file MODE holds `EIO`, `ESTALE`, `ENOSPC`, ... : all calls answer that; empty: all is well

What a fleet's board needs is here, and no more: no links of other kinds, no locks, no extended attributes.
"""

import errno
import os
import stat
import struct
import subprocess
import sys

(LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH,
 INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT, DESTROY, BATCH_FORGET, RENAME2) = (
    1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29, 30, 35, 36, 38, 42, 45)
SILENT = {FORGET, BATCH_FORGET, INTERRUPT, DESTROY}
ALWAYS = SILENT | {INIT, RELEASE, RELEASEDIR}
WRITE_MAX = 128 << 10
DIRECT_IO = 1
ROOT = 1


class Mount:
    """The kernel's numbers of files are those of the common directory; each is found again by the last name it had."""

    def __init__(self, common):
        self.common = common
        self.paths = {ROOT: common}
        self.files, self.next = {}, 1

    # -- names and attributes

    def below(self, node, name):
        if node not in self.paths:
            raise OSError(errno.ESTALE, "forgotten")
        return os.path.join(self.paths[node], name.rstrip(b"\0").decode())

    def path(self, node):
        return self.below(node, b"").rstrip("/")

    def attributes(self, found):
        number = ROOT if found.st_ino == os.stat(self.common).st_ino else found.st_ino
        times = [int(moment // 1_000_000_000) for moment in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        rests = [moment % 1_000_000_000 for moment in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        return number, struct.pack("=6Q10I", number, found.st_size, found.st_blocks, *times, *rests, found.st_mode,
                                   found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)

    def entry(self, path):
        """What a name stands for; remembered for no time at all."""
        number, attributes = self.attributes(os.lstat(path))
        self.paths[number] = path
        return struct.pack("=4Q2I", number, 0, 0, 0, 0, 0) + attributes

    def opened(self, descriptor):
        self.next += 1
        self.files[self.next] = descriptor
        return struct.pack("=Q2I", self.next, DIRECT_IO, 0)

    # -- calls: number of the file, what came with it

    def init(self, _, body):
        major, minor, ahead, _ = struct.unpack_from("=4I", body)
        return struct.pack("=4I2H2I", major, min(minor, 31), ahead, 0, 16, 12, WRITE_MAX, 1) + bytes(36)

    def lookup(self, node, body):
        return self.entry(self.below(node, body))

    def getattr(self, node, body):
        flags, _, handle = struct.unpack_from("=2IQ", body)
        found = os.fstat(self.files[handle]) if flags & 1 and handle in self.files else os.lstat(self.path(node))
        return struct.pack("=Q2I", 0, 0, 0) + self.attributes(found)[1]

    def setattr(self, node, body):
        valid, _, _, size, _, atime, mtime, _, arest, mrest, _, mode, _, uid, gid = struct.unpack_from("=2I6Q3I4I", body)
        path = self.path(node)
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 6:
            os.lchown(path, uid if valid & 2 else -1, gid if valid & 4 else -1)
        if valid & 8:
            os.truncate(path, size)
        if valid & 32 and not valid & 256:
            os.utime(path, ns=(atime * 1_000_000_000 + arest, mtime * 1_000_000_000 + mrest))
        return struct.pack("=Q2I", 0, 0, 0) + self.attributes(os.lstat(path))[1]

    def mkdir(self, node, body):
        mode, umask = struct.unpack_from("=2I", body)
        path = self.below(node, body[8:])
        os.mkdir(path)
        os.chmod(path, stat.S_IMODE(mode) & ~umask)
        return self.entry(path)

    def create(self, node, body):
        flags, mode, umask, _ = struct.unpack_from("=4I", body)
        path = self.below(node, body[16:])
        descriptor = os.open(path, (flags & (os.O_ACCMODE | os.O_EXCL | os.O_TRUNC)) | os.O_CREAT | os.O_NOFOLLOW,
                             stat.S_IMODE(mode) & ~umask)
        return self.entry(path) + self.opened(descriptor)

    def open(self, node, body):
        flags = struct.unpack_from("=I", body)[0]
        return self.opened(os.open(self.path(node), (flags & (os.O_ACCMODE | os.O_TRUNC)) | os.O_NOFOLLOW))

    def opendir(self, node, _):
        return self.opened(os.open(self.path(node), os.O_RDONLY | os.O_DIRECTORY))

    def read(self, _, body):
        handle, offset, size = struct.unpack_from("=2QI", body)
        return os.pread(self.files[handle], size, offset)

    def write(self, _, body):
        handle, offset, size = struct.unpack_from("=2QI", body)
        return struct.pack("=2I", os.pwrite(self.files[handle], body[40:40 + size], offset), 0)

    def readdir(self, node, body):
        _, offset, size = struct.unpack_from("=2QI", body)
        answer = b""
        with os.scandir(self.path(node)) as entries:
            found = sorted((entry.name, entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries)
        for place, (name, number, is_directory) in enumerate(found[offset:], offset + 1):
            name = name.encode()
            kind = (stat.S_IFDIR if is_directory else stat.S_IFREG) >> 12
            one = struct.pack("=2Q2I", number, place, len(name), kind) + name
            one += bytes(-len(one) % 8)
            if len(answer) + len(one) > size:
                break
            answer += one
        return answer

    def release(self, _, body):
        descriptor = self.files.pop(struct.unpack_from("=Q", body)[0], None)
        if descriptor is not None:
            os.close(descriptor)
        return b""

    def link(self, node, body):
        old = struct.unpack_from("=Q", body)[0]
        path = self.below(node, body[8:])
        os.link(self.path(old), path, follow_symlinks=False)
        return self.entry(path)

    def unlink(self, node, body):
        os.unlink(self.below(node, body))
        return b""

    def rmdir(self, node, body):
        os.rmdir(self.below(node, body))
        return b""

    def rename(self, node, body, names=8):
        new_parent = struct.unpack_from("=Q", body)[0]
        old, new = body[names:].split(b"\0")[:2]
        path = self.below(new_parent, new)
        os.rename(self.below(node, old), path)
        self.entry(path)
        return b""

    def rename2(self, node, body):
        # As on network storage: no flags.
        if struct.unpack_from("=QI", body)[1]:
            raise OSError(errno.EINVAL, "flags")
        return self.rename(node, body, 16)

    def statfs(self, _, __):
        found = os.statvfs(self.common)
        return struct.pack("=5Q4I6I", found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree,
                           found.f_bsize, 255, found.f_frsize, 0, *[0] * 6)

    def nothing(self, _, __):
        return b""


CALLS = {INIT: Mount.init, LOOKUP: Mount.lookup, GETATTR: Mount.getattr, SETATTR: Mount.setattr, MKDIR: Mount.mkdir,
         UNLINK: Mount.unlink, RMDIR: Mount.rmdir, RENAME: Mount.rename, RENAME2: Mount.rename2, LINK: Mount.link,
         OPEN: Mount.open, READ: Mount.read, WRITE: Mount.write, STATFS: Mount.statfs, RELEASE: Mount.release,
         OPENDIR: Mount.opendir, READDIR: Mount.readdir, RELEASEDIR: Mount.release, CREATE: Mount.create,
         FSYNC: Mount.nothing, FSYNCDIR: Mount.nothing, FLUSH: Mount.nothing}


def failure(mode):
    """The error that all calls answer now; 0: none."""
    try:
        with open(mode, encoding="ascii") as file:
            return getattr(errno, file.read().strip(), 0)
    except FileNotFoundError:
        return 0


def answer(mount, call, node, body, mode):
    """Error and body."""
    failed = 0 if call in ALWAYS else failure(mode)
    if failed:
        return failed, b""
    if call not in CALLS:
        return errno.ENOSYS, b""
    try:
        return 0, CALLS[call](mount, node, body)
    except OSError as error:
        return error.errno or errno.EIO, b""


def main(common, mountpoint, mode):
    device = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(device, True)
    options = f"fd={device},rootmode=040000,user_id=0,group_id=0,allow_other,default_permissions"
    subprocess.run(["mount", "-i", "-t", "fuse.share", "-o", options, "share", mountpoint], pass_fds=[device], check=True)
    print("mounted", flush=True)
    mount = Mount(common)
    while True:
        try:
            request = os.read(device, WRITE_MAX + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                continue
            raise
        _, call, unique, node = struct.unpack_from("=2I2Q", request)
        failed, body = answer(mount, call, node, request[40:], mode)
        if call not in SILENT:
            try:
                os.write(device, struct.pack("=IiQ", 16 + len(body), -failed, unique) + body)
            except OSError as error:
                # Who asked is gone.
                if error.errno != errno.ENOENT:
                    raise


if __name__ == "__main__":
    main(*sys.argv[1:])
