//! One thread, and no other of its process: whose it is, and who goes before it.

use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

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
