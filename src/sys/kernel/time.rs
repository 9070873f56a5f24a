//! Being woken on time, and whether somebody sets the clock right.

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
