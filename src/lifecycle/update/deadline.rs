//! How long each phase of an update may take: the sum of all that the settings allow, in one place.
//!
//! ```text
//! switch   hooks, drain, stop, copies of the data, start        ends with the trial, or goes back
//! trial    checks and hooks                                     ends with a commit, or goes back
//! back     hooks, drain, stop, start, checks of the old release ends at rest, or with a person
//! end      hooks, and what is remembered and cleared away       ends at rest
//! ```
//! Each phase has a deadline of its own, which stands in the journal and is renewed when the phase begins. Whoever holds
//! the lock of the switch beyond it hangs, and is ended by `cutover recover`, which a timer runs until nothing is under
//! way any more. So a node is settled within [`Bounds::whole`] of the begin of a switch, even if the program that carries
//! it out is stopped at the worst moment.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::lifecycle::application::Moment;
use crate::lifecycle::application::hooks::Hooks;
use crate::lifecycle::application::service::Action;
use crate::lifecycle::settings::Settings;
use crate::sys::clock::Clock;
use crate::types::record::{Deadline, Phase};

/// For slow disks, and for what has no bound in the settings.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a service may take to end after it was killed, and systemd to read unit files.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// A copy of data takes a while even where blocks are shared,
const COPY_AT_LEAST: Duration = Duration::from_secs(20);
/// and so many bytes take a second where they are not.
const COPY_BYTES_PER_SECOND: u64 = 8 << 20;

/// How long each phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From the clearance to the start of the trial.
    pub switch: Duration,
    pub trial: Duration,
    pub back: Duration,
    pub end: Duration,
}

impl Bounds {
    /// The bounds that follow from these settings. `hooks` says how many hooks a moment may have, and `copied` how many
    /// bytes of data must be copied one by one.
    pub fn new(settings: &Settings, hooks: impl Fn(Moment) -> u32, copied: u64) -> Self {
        let (service, health) = (&settings.service, &settings.health);
        let run_hooks = |moment| settings.hooks.timeout.0 * hooks(moment);
        let others = settings.fleet_patience();
        let drain = service.drain.as_ref().map_or(Duration::ZERO, |_| service.drain_timeout.0);
        let stop = drain + service.stop_timeout.0 + AFTER_KILL;
        // What still runs then is stopped once more, and systemd reads its unit files.
        let start = service.stop_timeout.0 + AFTER_KILL + service.start_timeout.0;
        // Going back, what does not reload in that time is restarted.
        let reload = match service.action {
            Action::ReloadOrRestart => service.start_timeout.0,
            Action::Restart | Action::StopStart | Action::None => Duration::ZERO,
        };
        let copies = if settings.data.is_empty() {
            Duration::ZERO
        } else {
            COPY_AT_LEAST + Duration::from_secs(copied / COPY_BYTES_PER_SECOND)
        };
        // A round of checks that begins in time may end late.
        let slowest = health.check.iter().map(|check| check.limit().0).max().unwrap_or_default();
        let checks = health.deadline.0 + slowest;
        Self {
            switch: run_hooks(Moment::PreSwitch)
                + slowest
                + stop
                + copies
                + start
                + run_hooks(Moment::PostSwitch)
                + others
                + MARGIN,
            trial: checks + run_hooks(Moment::Healthy) + others + MARGIN,
            back: run_hooks(Moment::PreRollback) + stop + reload + start + checks + others + MARGIN,
            end: run_hooks(Moment::Committed)
                .max(run_hooks(Moment::PostRollback) + run_hooks(Moment::Failed))
                + MARGIN,
        }
    }

    /// The same for the application `app` on this node, with the hooks that the admin has now, and that these releases
    /// bring; without releases, for any that may come.
    pub fn of(app: &str, settings: &Settings, releases: &[PathBuf], copied: u64) -> Self {
        let hooks = Hooks::of(app, &settings.hooks);
        Self::new(settings, |moment| hooks.count(moment, releases), copied)
    }

    /// From the clearance to rest at the longest, when the program that does it is stopped once, in the last moment of
    /// the longest phase.
    pub fn whole(&self) -> Duration {
        let Self { switch, trial, back, end } = *self;
        switch + trial + back + end + switch.max(back).max(end)
    }

    /// How long this phase may take; `None` for a phase in which nothing has been changed.
    pub fn of_phase(&self, phase: &Phase) -> Option<Duration> {
        match phase {
            Phase::Staged | Phase::Warming => None,
            Phase::Switching => Some(self.switch),
            Phase::Trial { .. } => Some(self.trial),
            Phase::RollingBack { .. } => Some(self.back),
            Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => Some(self.end),
        }
    }
}

/// The moment so far from now, by every clock.
pub fn after(clock: &dyn Clock, within: Duration) -> Deadline {
    let boot_ms = u64::try_from((clock.boot() + within).as_millis()).unwrap_or(u64::MAX);
    let wall = clock.wall().saturating_add(SignedDuration::try_from(within).unwrap_or_default());
    Deadline { boot_id: clock.boot_id(), boot_ms, wall: wall.unwrap_or(Timestamp::MAX) }
}

/// How long it is until then.
pub fn remaining(clock: &dyn Clock, deadline: &Deadline) -> Duration {
    deadline.remaining(&clock.boot_id(), clock.boot(), clock.wall())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(text: &str, hooks: u32, copied: u64) -> Bounds {
        Bounds::new(&toml::from_str(text).unwrap(), |_| hooks, copied)
    }

    #[test]
    fn all_that_the_settings_allow_is_in_the_bounds() {
        let seconds = |bounds: Bounds| {
            [bounds.switch, bounds.trial, bounds.back, bounds.end].map(|bound| bound.as_secs())
        };
        let plain = "[service]\nstop_timeout = '1s'\nstart_timeout = '2s'\n[health]\ndeadline = '6s'\n";
        assert_eq!(seconds(bounds(plain, 0, 0)), [54, 36, 60, 30]);
        // Two hooks at each moment, of a minute each.
        assert_eq!(seconds(bounds(plain, 2, 0)), [54 + 240, 36 + 120, 60 + 120, 30 + 240]);
        let drain = plain.replace("[health]", "drain = 'true'\ndrain_timeout = '7s'\n[health]");
        assert_eq!(seconds(bounds(&drain, 0, 0)), [61, 36, 67, 30]);
        let data = format!("{plain}[[data]]\npath = '/srv/data'\n");
        assert_eq!(seconds(bounds(&data, 0, 0)), [74, 36, 60, 30]);
        assert_eq!(seconds(bounds(&data, 0, 80 << 20)), [84, 36, 60, 30]);
        let slow =
            format!("{plain}[[health.check]]\nname = 'a'\nexec = {{ command = ['a'] }}\ntimeout = '9s'\n");
        assert_eq!(seconds(bounds(&slow, 0, 0)), [63, 45, 69, 30]);
        let fleet = format!("{plain}[fleet]\nmode = 'rolling'\n");
        assert_eq!(seconds(bounds(&fleet, 0, 0)), [954, 936, 960, 30]);
        assert_eq!(bounds(plain, 0, 0).whole().as_secs(), 54 + 36 + 60 + 30 + 60);
    }
}
