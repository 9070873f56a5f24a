//! What Linux offers only as `ioctl` or bare system call: clones of files, subvolumes of btrfs, the priority of input
//! and output, being woken on time. The one file with `unsafe`.
//!
//! None of the changes here is durable when the call returns, but [`snapshot`], which commits the transaction first;
//! sync the parent directory of a subvolume that was created or deleted. Callers ask [`Disk::ask`] before a change.
//!
//! [`Disk::ask`]: super::disk::Disk::ask
#![expect(unsafe_code, reason = "ioctl has no safe form; each call's argument is a plain C struct")]

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::NixPath as _;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::open;

const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;
const EXT4_SUPER_MAGIC: u64 = 0xef53;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
/// A subvolume's root always has this inode number, and no other directory of btrfs has it.
const SUBVOLUME_INODE: u64 = 256;
const READ_ONLY: u64 = 1 << 1;
/// linux/btrfs_tree.h: BTRFS_ROOT_SUBVOL_RDONLY: the same, as a subvolume's information says it
const ROOT_READ_ONLY: u64 = 1;
const NAME_BYTES_MAX: usize = 4039;

/// linux/btrfs.h: `struct btrfs_ioctl_vol_args_v2`, with its unions as plain bytes.
#[repr(C)]
struct VolumeArguments {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME_BYTES_MAX + 1],
}

/// linux/btrfs.h: `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct SubvolumeInformation {
    tree: u64,
    name: [u8; 256],
    parent: u64,
    directory: u64,
    generation: u64,
    flags: u64,
    identifiers: [u8; 48],
    changed_in: u64,
    made_in: u64,
    sent_in: u64,
    received_in: u64,
    times: [u64; 8],
    reserved: [u64; 8],
}

/// linux/fs.h: `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    shared_extent_size: u32,
    padding: [u8; 8],
}

impl FileAttributes {
    fn project(&self) -> Project {
        Project { id: self.project, is_handed_on: self.flags & HANDS_PROJECT_ON != 0 }
    }
}

/// linux/fs.h: FS_XFLAG_PROJINHERIT
const HANDS_PROJECT_ON: u32 = 0x200;

/// The project whose quota a file or directory counts for (`lsattr -p`, `xfs_quota`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Project {
    pub id: u32,
    /// Whether what is made in this directory belongs to it as well, and nothing of another one may be moved here.
    pub is_handed_on: bool,
}

impl Project {
    /// Whether the kernel lets something of the project `other` be renamed into a directory of this one.
    pub fn takes(self, other: Self) -> bool {
        !self.is_handed_on || self.id == other.id
    }
}

mod raw {
    use super::{FileAttributes, SubvolumeInformation, VolumeArguments};
    nix::ioctl_write_int!(clone, 0x94, 9);
    nix::ioctl_write_ptr!(subvolume_create, 0x94, 24, VolumeArguments);
    nix::ioctl_write_ptr!(snapshot_create, 0x94, 23, VolumeArguments);
    nix::ioctl_write_ptr!(subvolume_delete, 0x94, 63, VolumeArguments);
    nix::ioctl_read!(get_information, 0x94, 60, SubvolumeInformation);
    nix::ioctl_write_ptr!(set_flags, 0x94, 26, u64);
    // linux/fs.h: FS_IOC_GETFLAGS and FS_IOC_SETFLAGS; the kernel reads and writes an int, whatever the header says.
    nix::ioctl_read!(get_file_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_file_flags, b'f', 2, libc::c_long);
    nix::ioctl_read!(get_attributes, b'X', 31, FileAttributes);
    nix::ioctl_write_ptr!(set_attributes, b'X', 32, FileAttributes);
}

const SOCKET_FILE: libc::c_ulong = 0x89e0;

/// The file that a Unix socket of another process is bound to, opened as a path only. For root.
pub fn socket_file(pid: i32, descriptor: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls with numbers; each result is checked before it is owned, by nobody else.
    unsafe {
        let owned = |number: libc::c_long| -> io::Result<OwnedFd> {
            let number = Errno::result(number)?;
            Ok(OwnedFd::from_raw_fd(i32::try_from(number).map_err(io::Error::other)?))
        };
        let process = owned(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let socket = owned(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0))?;
        owned(libc::ioctl(socket.as_raw_fd(), SOCKET_FILE as _).into())
    }
}

/// linux/unistd.h: `listxattrat`, since Linux 6.13, with one number on all machines.
const LIST_ATTRIBUTES: libc::c_long = 465;

/// The names of the extended attributes of a file, each with a zero behind it. No link is followed.
///
/// # Errors
/// Also when the kernel is older than 6.13, or the names are longer than the buffer.
pub fn attribute_names<'a>(directory: impl AsFd, name: &[u8], buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let (directory, flags) = (directory.as_fd().as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    let (list, size) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the name ends with a zero, the kernel writes at most `size` bytes, and both live until the call returns.
    let length = name.with_nix_path(|name| unsafe {
        libc::syscall(LIST_ATTRIBUTES, directory, name.as_ptr(), flags, list, size)
    })?;
    let length = usize::try_from(Errno::result(length)?).map_err(io::Error::other)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// What the kernel says of `name` in an open directory, or with an empty name of what is open itself. No link is followed,
/// and nothing is mounted for it.
pub fn statx(directory: impl AsFd, name: &CStr) -> io::Result<libc::statx> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: every field of the C struct may be zero; the name ends in a zero byte; the kernel fills in the struct only.
    let (answer, found) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let directory = directory.as_fd().as_raw_fd();
        (libc::statx(directory, name.as_ptr(), flags, mask, &raw mut found), found)
    };
    Errno::result(answer)?;
    Ok(found)
}

/// The flags of an open file or directory that `chattr` shows; none where the file system has none.
pub fn file_flags(file: impl AsFd) -> io::Result<i32> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes at most one long to where the pointer shows.
    match unsafe { raw::get_file_flags(file.as_fd().as_raw_fd(), &raw mut flags) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(0),
        Err(error) => Err(error.into()),
        // The kernel writes an int to the start of it.
        Ok(_) => Ok(i32::from_ne_bytes([0, 1, 2, 3].map(|at| flags.to_ne_bytes()[at]))),
    }
}

pub fn set_file_flags(file: impl AsFd, flags: i32) -> io::Result<()> {
    let mut bytes = [0; size_of::<libc::c_long>()];
    bytes[..4].copy_from_slice(&flags.to_ne_bytes());
    let flags = libc::c_long::from_ne_bytes(bytes);
    // SAFETY: the kernel reads one int from where the pointer shows, which is a whole long.
    unsafe { raw::set_file_flags(file.as_fd().as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// The project of an open file or directory; that of everybody where the file system has none.
pub fn project(file: impl AsFd) -> io::Result<Project> {
    Ok(attributes_of(&file)?.map(|found| found.project()).unwrap_or_default())
}

/// Gives an open file or directory to a project.
pub fn set_project(file: impl AsFd, wanted: Project) -> io::Result<()> {
    let Some(mut attributes) = attributes_of(&file)?.filter(|now| now.project() != wanted) else {
        return Ok(());
    };
    attributes.project = wanted.id;
    attributes.flags &= !HANDS_PROJECT_ON;
    attributes.flags |= if wanted.is_handed_on { HANDS_PROJECT_ON } else { 0 };
    // SAFETY: the kernel reads one whole `fsxattr` from where the pointer shows.
    match unsafe { raw::set_attributes(file.as_fd().as_raw_fd(), &raw const attributes) } {
        // In a user namespace nobody may.
        Err(Errno::EPERM | Errno::EINVAL) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn attributes_of(file: impl AsFd) -> io::Result<Option<FileAttributes>> {
    let mut attributes = FileAttributes::default();
    // SAFETY: the kernel writes one whole `fsxattr` to where the pointer shows.
    match unsafe { raw::get_attributes(file.as_fd().as_raw_fd(), &raw mut attributes) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some(attributes)),
    }
}

/// Makes `to`, an empty file, share all blocks of `from` (reflink). Both must be on one file system that can do it:
/// the error is `EOPNOTSUPP`, `EXDEV`, `EINVAL` or `ENOTTY` where it cannot.
pub fn clone_file(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let source = u64::try_from(from.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: both descriptors are borrowed and so open; the argument is a number, no memory is shared.
    unsafe { raw::clone(to.as_fd().as_raw_fd(), source) }?;
    Ok(())
}

/// Whether this error of [`clone_file`] or [`snapshot`] says that the file system cannot do it at all.
pub fn is_unsupported(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS))
}

/// The number in linux/magic.h; C libraries differ in its type.
pub fn file_system_kind(found: &nix::sys::statfs::Statfs) -> u64 {
    u64::from_ne_bytes(found.filesystem_type().0.to_ne_bytes())
}

/// Lets two names change places in one step.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let as_c = |path: &Path| std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
    let (one, other) = (as_c(one)?, as_c(other)?);
    let here = libc::AT_FDCWD;
    // Not every C library has a function for it.
    // SAFETY: the kernel reads two texts that end with a zero and outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Whether `path` lies on btrfs.
pub fn is_btrfs(path: &Path) -> io::Result<bool> {
    Ok(file_system_kind(&nix::sys::statfs::statfs(path)?) == BTRFS_SUPER_MAGIC)
}

/// Whether `path` lies on an overlay, as the root of a container does.
pub fn is_overlay(path: &Path) -> io::Result<bool> {
    Ok(file_system_kind(&nix::sys::statfs::statfs(path)?) == OVERLAYFS_SUPER_MAGIC)
}

/// Whether `path` lies on a file system of which it is known that files never share blocks there.
pub fn never_shares_blocks(path: &Path) -> io::Result<bool> {
    let kind = file_system_kind(&nix::sys::statfs::statfs(path)?);
    Ok([EXT4_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind))
}

/// Whether `path` is the root of a subvolume of btrfs.
pub fn is_subvolume(path: &Path) -> io::Result<bool> {
    let found = std::fs::symlink_metadata(path)?;
    Ok(found.is_dir() && found.ino() == SUBVOLUME_INODE && is_btrfs(path)?)
}

/// Makes an empty subvolume at `path`. Mode 0755, owned by the caller.
pub fn create_subvolume(path: &Path) -> io::Result<()> {
    let (parent, arguments) = arguments(path, -1, 0)?;
    // SAFETY: the argument is a whole `btrfs_ioctl_vol_args_v2`, its name ends in a zero byte.
    unsafe { raw::subvolume_create(parent.as_raw_fd(), &raw const *arguments) }?;
    Ok(())
}

/// Takes a snapshot of the subvolume `source` at `path`, which must not exist. It is durable, with all that was written
/// to `source` before, when this returns.
pub fn snapshot(source: &Path, path: &Path, is_read_only: bool) -> io::Result<()> {
    let source = open::directory(source)?;
    let flags = if is_read_only { READ_ONLY } else { 0 };
    let (parent, arguments) = arguments(path, i64::from(source.as_raw_fd()), flags)?;
    // SAFETY: as above; the descriptor in it is open until the end of this function.
    unsafe { raw::snapshot_create(parent.as_raw_fd(), &raw const *arguments) }?;
    Ok(())
}

/// Deletes the subvolume at `path`, also one that is read-only. Returns at once; the kernel frees the space later.
pub fn delete_subvolume(path: &Path) -> io::Result<()> {
    let (parent, mut arguments) = arguments(path, 0, 0)?;
    arguments.descriptor = 0;
    // SAFETY: as above; with flags 0 the kernel reads the name only.
    unsafe { raw::subvolume_delete(parent.as_raw_fd(), &raw const *arguments) }?;
    Ok(())
}

/// Whether `path` is a read-only snapshot that nobody has written to since it was taken, also not meanwhile.
pub fn is_pristine_snapshot(path: &Path) -> io::Result<bool> {
    if !is_subvolume(path)? {
        return Ok(false);
    }
    let subvolume = open::directory(path)?;
    let mut found = Box::new(SubvolumeInformation {
        tree: 0,
        name: [0; 256],
        parent: 0,
        directory: 0,
        generation: 0,
        flags: 0,
        identifiers: [0; 48],
        changed_in: 0,
        made_in: 0,
        sent_in: 0,
        received_in: 0,
        times: [0; 8],
        reserved: [0; 8],
    });
    // SAFETY: the kernel writes one `btrfs_ioctl_get_subvol_info_args` to where the pointer shows.
    unsafe { raw::get_information(subvolume.as_raw_fd(), &raw mut *found) }?;
    Ok(found.flags & ROOT_READ_ONLY != 0 && found.changed_in <= found.made_in)
}

/// Makes the subvolume at `path` refuse or take writes. Does not make its files durable: sync before.
pub fn set_read_only(path: &Path, is_read_only: bool) -> io::Result<()> {
    let subvolume = open::directory(path)?;
    let flags: u64 = if is_read_only { READ_ONLY } else { 0 };
    // SAFETY: the kernel reads one u64 from where the pointer shows.
    unsafe { raw::set_flags(subvolume.as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// Lets this thread's reading and writing wait for everybody else's. Says nothing where that cannot be done.
pub fn yield_input_and_output() {
    // linux/ioprio.h: IOPRIO_WHO_PROCESS, and IOPRIO_CLASS_IDLE in the class bits; 0 is the calling thread.
    const WHO_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: three numbers; no memory is shared.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
}

/// Makes this thread, and no other of this process, another user's: what it starts inherits that. There is no way back.
pub fn become_user(user: Uid, group: Gid, groups: &[Gid]) -> io::Result<()> {
    let groups: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    let (user, group) = (user.as_raw(), group.as_raw());
    // The C library's calls of these names change all threads.
    // SAFETY: numbers, and a list that lives longer than the call.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, group, group, group))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, user, user, user))?;
    }
    Ok(())
}

/// The opened parent directory of `path`, and the arguments that name it there.
fn arguments(path: &Path, descriptor: i64, flags: u64) -> io::Result<(File, Box<VolumeArguments>)> {
    let name = path.file_name().map(OsStr::as_bytes).ok_or(Errno::EINVAL)?;
    if name.len() > 255 {
        return Err(Errno::ENAMETOOLONG.into());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut arguments = Box::new(VolumeArguments {
        descriptor,
        transaction: 0,
        flags,
        unused: [0; 4],
        name: [0; NAME_BYTES_MAX + 1],
    });
    arguments.name[..name.len()].copy_from_slice(name);
    Ok((open::directory(parent)?, arguments))
}

/// While it lives, this thread is woken on time and not kept waiting: it goes before all ordinary processes, its timers
/// are not rounded, and its memory stays where it is. What the machine does not permit is left out. Children that it
/// starts are ordinary ones.
#[derive(Debug)]
pub struct Prompt {
    policy: libc::c_int,
    priority: libc::sched_param,
    slack: libc::c_int,
}

pub fn be_prompt() -> Prompt {
    // SAFETY: each call takes numbers, or a structure that is read or written whole before it returns. That structure has
    // numbers only, so zeros are a value of it; which numbers, C libraries differ in.
    unsafe {
        let mut priority: libc::sched_param = std::mem::zeroed();
        let mut first_of_all = priority;
        first_of_all.sched_priority = 1;
        let policy = libc::sched_getscheduler(0);
        libc::sched_getparam(0, &raw mut priority);
        let slack = libc::prctl(libc::PR_GET_TIMERSLACK);
        // Only what is in use: not a whole program that may never be needed.
        libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64);
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const first_of_all);
        Prompt { policy, priority, slack }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            libc::sched_setscheduler(0, self.policy, &raw const self.priority);
            libc::prctl(libc::PR_SET_TIMERSLACK, self.slack);
            libc::munlockall();
        }
    }
}

/// Whether something (chrony, timesyncd, ntpd, a host) disciplines the wall clock, as it has told the kernel.
pub fn clock_is_synchronised() -> bool {
    // SAFETY: every field of the C struct may be zero; with `modes` zero nothing is changed, only the struct is filled.
    let (state, answer) = unsafe {
        let mut answer: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut answer), answer)
    };
    state >= 0 && answer.status & libc::STA_UNSYNC == 0
}

/// Closes all descriptors of this process but the three usual ones: for a program that has just begun.
///
/// # Errors
/// When the kernel is too old (before 5.9).
pub fn close_others() -> io::Result<()> {
    // SAFETY: nobody in this process has opened any of them yet.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps what this process was begun with, but for the three usual ones, from all that it starts. What it opens itself is
/// kept from them by whoever opens it.
pub fn close_inherited_on_exec() {
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > libc::STDERR_FILENO) {
            // SAFETY: two numbers. Of a descriptor that is closed by now the kernel says so, and nothing is changed.
            let _ = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// A descriptor that another process has sent.
pub fn received(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for this process, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Calls that nobody needs who only speaks with the network: other programs, other processes, mounts, the kernel itself.
#[rustfmt::skip]
const FORBIDDEN: [libc::c_long; 47] = [
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_fsopen, libc::SYS_fsmount, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_mount_setattr,
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_keyctl, libc::SYS_add_key,
    libc::SYS_request_key, libc::SYS_kexec_load, libc::SYS_init_module, libc::SYS_finit_module,
    libc::SYS_delete_module, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at, libc::SYS_quotactl, libc::SYS_syslog,
    libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_personality,
];

/// Sockets that are left: those of the resolver, of IP, and of the kernel's list of addresses.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

#[cfg(target_arch = "x86_64")]
const MACHINE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const MACHINE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: Option<u32> = None;

/// Has the kernel refuse these calls, and sockets of other kinds, to the calling thread and all that it starts. New
/// privileges must have been given up before.
///
/// # Errors
/// When the kernel has no such filter, or the filter is not known for this machine.
pub fn forbid_calls() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IS_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const SAY: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Where number, machine and first argument are in what a filter sees.
    const NUMBER: u32 = 0;
    const MACHINE_AT: u32 = 4;
    const ARGUMENT: u32 = 16;
    // Numbers of another table of calls of the same machine (x32).
    const OTHER_TABLE: u32 = 0x4000_0000;
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let step = |code, k, yes, no| libc::sock_filter { code, jt: yes, jf: no, k };
    let machine = MACHINE.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let mut steps = vec![
        step(LOAD, MACHINE_AT, 0, 0),
        step(IS, machine, 1, 0),
        step(SAY, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        step(LOAD, NUMBER, 0, 0),
        step(IS_AT_LEAST, OTHER_TABLE, 0, 1),
        step(SAY, refusal, 0, 0),
    ];
    for number in FORBIDDEN {
        steps.push(step(IS, number as u32, 0, 1));
        steps.push(step(SAY, refusal, 0, 0));
    }
    steps.push(step(IS, libc::SYS_socket as u32, 1, 0));
    steps.push(step(SAY, libc::SECCOMP_RET_ALLOW, 0, 0));
    steps.push(step(LOAD, ARGUMENT, 0, 0));
    for family in SOCKETS {
        steps.push(step(IS, family as u32, 0, 1));
        steps.push(step(SAY, libc::SECCOMP_RET_ALLOW, 0, 0));
    }
    steps.push(step(SAY, refusal, 0, 0));
    let length = u16::try_from(steps.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live until the call returns; the kernel copies them.
    let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_have_the_kernels_size() {
        assert_eq!(size_of::<VolumeArguments>(), 4096);
        assert_eq!(size_of::<SubvolumeInformation>(), 504);
    }

    #[test]
    fn names_of_attributes_are_found_in_a_directory_and_no_link_is_followed() {
        use xattr::FileExt as _;
        let place = tempfile::tempdir().unwrap();
        let file = File::create(place.path().join("file")).unwrap();
        nix::unistd::symlinkat("file", nix::fcntl::AT_FDCWD, &place.path().join("link")).unwrap();
        let directory = open::directory(place.path()).unwrap();
        let names = |name: &str, length: usize| {
            let mut buffer = vec![0; length];
            attribute_names(&directory, name.as_bytes(), &mut buffer).map(<[u8]>::to_vec)
        };
        let marked = file.set_xattr("user.mark", b"1");
        match names("file", 100) {
            // An older kernel, or a container that lets no new calls through.
            Err(error) if [Some(libc::ENOSYS), Some(libc::EPERM)].contains(&error.raw_os_error()) => {}
            found => {
                let is_marked =
                    |names: &[u8]| names.split(|byte| *byte == 0).any(|name| name == b"user.mark");
                assert_eq!(is_marked(&found.unwrap()), marked.is_ok());
                assert!(!is_marked(&names("link", 100).unwrap()));
                assert!(marked.is_err() || names("file", 3).is_err());
                assert!(names("other", 100).is_err());
            }
        }
    }

    #[test]
    fn an_ordinary_directory_is_no_subvolume() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::DirBuilder::new().create(&inner).unwrap();
        assert!(!is_subvolume(&inner).unwrap());
    }
}
