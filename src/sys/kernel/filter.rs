//! What a process gives up that only speaks with the network: a filter of system calls (seccomp).

use std::io;

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
