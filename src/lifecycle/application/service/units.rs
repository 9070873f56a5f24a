//! Services that systemd runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::command::drain;
use super::settings::{Action, Settings};
use super::{Error, Services, Target};
use crate::health::{Began, Group};
use crate::sys::clock::{Clock as _, SystemClock};
use crate::sys::systemd::{self, Gate};
use crate::sys::unit::{self, Kind, Load, Unit};

/// How long systemd may take to see a killed unit end.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// How much longer than stop and start the gate holds back starts, should nobody open it.
const GATE_GRACE: Duration = Duration::from_secs(300);
/// How long units of others may be waited for.
const DEPENDANTS: Duration = Duration::from_secs(15);
/// How long a socket may take to come back.
const REVIVE: Duration = Duration::from_secs(10);
/// How often a unit that is slow is looked at again.
const GLANCE: Duration = Duration::from_millis(50);
/// How many lines of the journal are shown.
const LAST_WORDS: u32 = 10;

#[derive(Debug)]
pub struct UnitServices {
    settings: Settings,
    gate: Gate,
    /// Whether this process has stopped all services: what runs after that was started from the new tree.
    are_stopped: AtomicBool,
    /// Whether no socket, timer or path starts them: then there is none that may have to be opened again.
    are_untriggered: AtomicBool,
    /// Whether this process has cleared the start limits since.
    has_forgotten: AtomicBool,
    /// The last start, if this process made it.
    last_start: Mutex<Option<LastStart>>,
}

/// What tells the words of what was started from those of what ran before.
#[derive(Clone, Debug)]
struct LastStart {
    /// By the wall clock, in microseconds.
    at_us: i64,
    /// The runs that were to end.
    earlier: Vec<String>,
}

impl UnitServices {
    /// The services of the application `app`.
    pub fn new(settings: Settings, app: &str) -> Self {
        Self {
            settings,
            gate: Gate::new(app),
            are_stopped: AtomicBool::new(false),
            are_untriggered: AtomicBool::new(false),
            has_forgotten: AtomicBool::new(false),
            last_start: Mutex::new(None),
        }
    }

    /// Holds back starts of what is stopped: a socket, path or timer may start it again at once, and so may units and
    /// people that look after it.
    fn close_gate(&self, units: &[Unit]) -> Result<(), Error> {
        let stopped: Vec<_> = units.iter().filter(|unit| unit.kind.is_restarted()).cloned().collect();
        let are_untriggered = stopped.iter().all(|unit| unit.triggers().next().is_none());
        self.are_untriggered.store(are_untriggered, Ordering::SeqCst);
        if stopped.is_empty() {
            return Ok(());
        }
        let limit = self.settings.stop_timeout.0 + self.settings.start_timeout.0 + GATE_GRACE;
        Ok(self.gate.close(&names(&stopped), limit)?)
    }

    /// Kills what has not stopped in time, and waits for the end of it.
    fn finish_stop(units: &[String], said: systemd::Error) -> Result<(), Error> {
        let left = || -> Result<Vec<Unit>, Error> {
            Ok(unit::look(units)?.into_iter().filter(Unit::is_up).collect())
        };
        let running = left()?;
        if running.is_empty() {
            return Ok(());
        }
        if !matches!(said, systemd::Error::TimedOut { .. }) {
            return Err(said.into());
        }
        kill(&running)?;
        let begin = Instant::now();
        loop {
            let running = left()?;
            if running.is_empty() {
                return Ok(());
            }
            if begin.elapsed() >= AFTER_KILL {
                let states: Vec<_> = running.iter().map(|unit| unit.get("ActiveState")).collect();
                return Err(Error::Unstoppable {
                    units: names(&running).join(", "),
                    state: states.join(", "),
                });
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Starts units, in no more than `left`: what is left of the time that they have.
    fn start(&self, units: &[String], left: Duration) -> Result<(), Error> {
        let start = || match systemd::start(units, left) {
            Err(systemd::Error::TimedOut { action, subject, .. }) => {
                Err(systemd::Error::TimedOut { action, subject, limit: self.settings.start_timeout.0 })
            }
            started => started,
        };
        let since = monotonic();
        match start() {
            Err(refused @ systemd::Error::Refused { .. }) if hit_start_limit(units, since) => {
                tracing::debug!(%refused, "the start limit is cleared");
                systemd::reset_failed(units)?;
                Ok(start()?)
            }
            started => Ok(started?),
        }
    }

    /// Has units that run stop and start. Those that do not stop in time are killed, and so come to their start. Says how
    /// much of the time to start is left.
    fn replace(&self, running: &[Unit], stop: Duration, start: Duration) -> Result<Duration, Error> {
        if running.is_empty() {
            return Ok(start);
        }
        let (begin, since) = (Instant::now(), monotonic());
        // What is done within the shorter of both has kept to both.
        match systemd::restart(&names(running), stop.min(start)) {
            Err(systemd::Error::TimedOut { .. }) => {}
            Err(systemd::Error::Refused { .. }) if hit_start_limit(&names(running), since) => {
                systemd::reset_failed(&names(running))?;
                return Ok(start);
            }
            done => return Ok(done.map(|()| start)?),
        }
        let mut was_killed = false;
        loop {
            let now = unit::look(&names(running))?;
            let stopping: Vec<_> = now
                .iter()
                .zip(running)
                .filter(|(now, old)| still_runs(now, old))
                .map(|(now, _)| now.clone())
                .collect();
            if stopping.is_empty() {
                // Those that wait for others have not begun; the last one to begin has the most time left.
                let since = now.iter().filter(|unit| unit.is_up()).map(Unit::began).max();
                let gone = since.map_or(Duration::ZERO, |since| monotonic().saturating_sub(since));
                return Ok(start.saturating_sub(gone));
            }
            if begin.elapsed() >= stop && !was_killed {
                kill(&stopping)?;
                was_killed = true;
            }
            if begin.elapsed() >= stop + AFTER_KILL {
                let state =
                    stopping.iter().map(|unit| unit.get("ActiveState")).collect::<Vec<_>>().join(", ");
                return Err(Error::Unstoppable { units: names(&stopping).join(", "), state });
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Brings what runs to the new release, without stopping more of it than must be.
    fn renew(&self, family: &[Unit], units: &[String], is_going_back: bool) -> Result<Duration, Error> {
        let up = || family.iter().filter(|unit| unit.is_up() && unit.kind.is_restarted());
        let connections: Vec<_> =
            up().filter(|unit| unit.is_connection()).map(|unit| unit.name.clone()).collect();
        // A job that a timer has begun is begun again, and not waited for: only its timer knows how long it may take.
        let is_job = |unit: &Unit| !units.contains(&unit.name) && unit.is_oneshot();
        let jobs: Vec<_> = up().filter(|unit| is_job(unit)).map(|unit| unit.name.clone()).collect();
        let rest: Vec<_> = up().filter(|unit| !unit.is_connection() && !is_job(unit)).cloned().collect();
        let reloads = self.settings.action == Action::ReloadOrRestart;
        let (reloaded, mut replaced): (Vec<_>, Vec<_>) = rest.into_iter().partition(|unit| {
            reloads && unit.get("CanReload") == "yes" && unit.get("ActiveState") == "active"
        });
        // All that stops shares one time, and so does all that starts.
        let begin = Instant::now();
        if let Err(said) = systemd::stop(&connections, self.settings.stop_timeout.0) {
            Self::finish_stop(&connections, said)?;
        }
        let stop = self.settings.stop_timeout.0.saturating_sub(begin.elapsed()).max(GLANCE);
        systemd::begin_restart(&jobs)?;
        let begin = Instant::now();
        let start = match systemd::reload(&names(&reloaded), self.settings.start_timeout.0) {
            Err(said) if is_going_back => {
                tracing::warn!("{said}: restarted instead");
                replaced.extend(reloaded);
                self.settings.start_timeout.0
            }
            done => {
                done?;
                self.settings.start_timeout.0.saturating_sub(begin.elapsed()).max(GLANCE)
            }
        };
        self.replace(&replaced, stop, start)
    }

    fn note_start(&self, family: &[Unit]) {
        let earlier =
            family.iter().filter(|unit| unit.is_up()).map(|unit| unit.get("InvocationID").to_owned());
        let start = LastStart { at_us: SystemClock.wall().as_microsecond(), earlier: earlier.collect() };
        *self.last_start.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(start);
    }
}

impl Services for UnitServices {
    fn stops_first(&self, touches_data: bool) -> bool {
        match self.settings.action {
            Action::Restart | Action::ReloadOrRestart => touches_data,
            Action::StopStart => true,
            Action::None => false,
        }
    }

    fn drain(&self, target: &Target) -> Result<(), Error> {
        drain(&self.settings, target)
    }

    fn ensure_stopped(&self, target: &Target) -> Result<(), Error> {
        let family = unit::family(&target.names())?;
        self.close_gate(&family)?;
        // A socket that starts a service for each connection cannot keep them waiting: it stops as well.
        let stops =
            |unit: &Unit| unit.kind.is_restarted() || unit.accepts() || target.moved.contains(&unit.name);
        let running: Vec<_> = family
            .into_iter()
            .filter(|unit| unit.is_up() && stops(unit))
            .filter(|unit| !target.left.contains(&unit.name))
            .collect();
        let units = names(&running);
        if let Err(said) = systemd::stop(&units, self.settings.stop_timeout.0) {
            Self::finish_stop(&units, said)?;
        }
        self.are_stopped.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn ensure_running(&self, target: &Target) -> Result<(), Error> {
        let were_stopped = self.are_stopped.swap(false, Ordering::SeqCst);
        let are_untriggered = self.are_untriggered.swap(false, Ordering::SeqCst);
        // Nothing to renew, and nothing else to start: then nobody waits for the answer.
        let is_known = were_stopped && are_untriggered && target.again.is_empty();
        let family = if is_known { Vec::new() } else { unit::family(&target.names())? };
        let family: Vec<_> = family.into_iter().filter(|unit| !target.left.contains(&unit.name)).collect();
        if were_stopped { self.gate.open_own() } else { self.gate.open() }?;
        if !are_untriggered {
            revive_triggers(&family)?;
        }
        self.has_forgotten.store(false, Ordering::SeqCst);
        self.note_start(&family);
        let units: Vec<_> = target.units.iter().filter(|unit| !target.left.contains(unit)).cloned().collect();
        let left = if were_stopped {
            self.settings.start_timeout.0
        } else {
            match self.settings.action {
                // Sockets and the like stay up: a restart would refuse connections.
                Action::Restart | Action::ReloadOrRestart | Action::StopStart => {
                    self.renew(&family, &units, target.is_going_back)?
                }
                Action::None => return Ok(()),
            }
        };
        let begin = Instant::now();
        let left = || left.saturating_sub(begin.elapsed()).max(GLANCE);
        // Those that were down, and the rest of restarts that were slow: a start waits for a job that runs already. A
        // socket comes first: it refuses to listen when its service runs.
        let (mut first, then): (Vec<_>, Vec<_>) =
            units.iter().cloned().partition(|unit| Kind::of(unit).is_some_and(|kind| !kind.is_restarted()));
        let ran =
            family.iter().filter(|unit| target.again.contains(&unit.name) && !units.contains(&unit.name));
        let (services, others): (Vec<_>, Vec<_>) =
            ran.filter(|unit| unit.load == Load::Loaded).cloned().partition(|unit| unit.kind.is_restarted());
        let (jobs, again): (Vec<_>, Vec<_>) = services.into_iter().partition(Unit::is_oneshot);
        first.extend(names(&others));
        self.start(&first, left())?;
        self.start(&then, left())?;
        systemd::begin_start(&names(&jobs))?;
        self.start(&names(&again), left())
    }

    fn forget_failures(&self, target: &Target) {
        if self.has_forgotten.swap(true, Ordering::SeqCst) {
            return;
        }
        // Units that are not loaded have no failures to forget.
        if let Err(error) = systemd::reset_failed(&target.names()) {
            tracing::debug!(%error, "start limits are left as they are");
        }
    }

    fn started_since(&self, target: &Target, since: Duration) -> Vec<Began> {
        let family = unit::family(&target.names()).unwrap_or_default();
        let own =
            family.into_iter().filter(|unit| unit.kind != Kind::Slice && !target.left.contains(&unit.name));
        Began::since(&groups(&own.collect::<Vec<_>>()), since)
    }

    fn bring_back(&self, dependants: &[String]) -> Vec<String> {
        let look = || unit::look(dependants).unwrap_or_default();
        let down: Vec<_> =
            look().into_iter().filter(|unit| !unit.is_up() && unit.load == Load::Loaded).collect();
        // A target would start all that it wants, also what somebody has stopped.
        let (targets, others): (Vec<_>, Vec<_>) =
            down.into_iter().partition(|unit| unit.kind == Kind::Target);
        // A socket refuses to listen when its service runs.
        let (services, first): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|unit| unit.kind.is_restarted());
        let limit = self.settings.start_timeout.0.min(DEPENDANTS);
        let begin = |units: &[Unit], limit| {
            let _ = systemd::reset_failed(&names(units));
            systemd::start(&names(units), limit)
        };
        let started =
            [begin(&first, REVIVE), begin(&services, limit), systemd::start_alone(&names(&targets), REVIVE)];
        let why =
            started.into_iter().find_map(Result::err).map(|error| format!(": {error}")).unwrap_or_default();
        look()
            .iter()
            .filter(|unit| !unit.is_up())
            .map(|unit| {
                format!("`{}`, which ran before and depends on the application, is down{why}", unit.name)
            })
            .collect()
    }

    fn last_words(&self, target: &Target) -> Vec<String> {
        let start = self.last_start.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let words = |unit: &String| match &start {
            Some(start) => systemd::journal_tail_of_others(unit, LAST_WORDS, start.at_us, &start.earlier),
            None => systemd::journal_tail(unit, LAST_WORDS),
        };
        target.units.iter().filter(|unit| !target.left.contains(unit)).flat_map(words).collect()
    }
}

/// Starts sockets, paths and timers that failed with the service that they trigger: systemd closes a socket whose service
/// crashes again and again.
fn revive_triggers(units: &[Unit]) -> Result<(), Error> {
    let mut triggers: Vec<_> = units.iter().flat_map(|unit| unit.triggers().map(str::to_owned)).collect();
    triggers.sort();
    triggers.dedup();
    let failed: Vec<_> = unit::look(&triggers)?.into_iter().filter(Unit::has_failed).collect();
    systemd::reset_failed(&names(&failed))?;
    Ok(systemd::start(&names(&failed), REVIVE)?)
}

/// Whether this is the run that was to end.
fn still_runs(now: &Unit, before: &Unit) -> bool {
    now.is_up()
        && (now.get("ActiveState") == "deactivating" || now.get("InvocationID") == before.get("InvocationID"))
}

fn kill(units: &[Unit]) -> Result<(), Error> {
    tracing::warn!(units = names(units).join(", "), "services do not stop and are killed");
    Ok(systemd::kill(&names(units))?)
}

/// The control groups of units.
pub(super) fn groups(units: &[Unit]) -> Vec<Group> {
    let group = |unit: &Unit| Group {
        unit: unit.name.clone(),
        path: unit.get("ControlGroup").to_owned(),
        is_own: true,
        ..Group::default()
    };
    units.iter().map(group).collect()
}

fn names(units: &[Unit]) -> Vec<String> {
    units.iter().map(|unit| unit.name.clone()).collect()
}

/// Whether systemd refuses to start one of them since it was started too often. It says so only of a unit that had not
/// failed before: one that was killed keeps that as its result, and is seen by not having begun again `since`.
fn hit_start_limit(units: &[String], since: Duration) -> bool {
    let is_limited = |unit: &Unit| {
        unit.get("Result") == "start-limit-hit" || unit.get("ActiveState") == "failed" && unit.began() < since
    };
    unit::look(units).is_ok_and(|all| all.iter().any(is_limited))
}

/// The clock of systemd's time stamps.
fn monotonic() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
