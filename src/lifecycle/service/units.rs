//! Services that systemd runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::command::drain;
use super::settings::{Action, Settings};
use super::{Error, Services, Target};
use crate::sys::systemd::{self, Gate, Properties};

/// How long systemd may take to see a killed unit end.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// How much longer than stop and start the gate holds back starts, should nobody open it.
const GATE_GRACE: Duration = Duration::from_secs(300);
/// How long a socket may take to come back.
const REVIVE: Duration = Duration::from_secs(10);
/// How many lines of the journal are shown.
const LAST_WORDS: u32 = 10;

/// See [`Settings::units`].
#[derive(Debug)]
pub struct UnitServices {
    settings: Settings,
    gate: Gate,
    /// Whether this process has stopped all services: what runs after that was started from the new tree.
    are_stopped: AtomicBool,
    /// Whether nothing but systemd itself starts them again: then there is no gate to open.
    are_untriggered: AtomicBool,
    /// Whether this process has cleared the start limits since.
    has_forgotten: AtomicBool,
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
        }
    }

    /// Holds back starts of units that a socket, path or timer may start again as soon as they are stopped.
    fn close_gate(&self, units: &[String]) -> Result<(), Error> {
        let all = systemd::show(units, &["TriggeredBy"])?;
        let triggered: Vec<_> = units
            .iter()
            .zip(&all)
            .filter(|(_, properties)| properties.words("TriggeredBy").next().is_some())
            .map(|(unit, _)| unit.clone())
            .collect();
        self.are_untriggered.store(triggered.is_empty(), Ordering::SeqCst);
        if triggered.is_empty() {
            return Ok(());
        }
        let limit = self.settings.stop_timeout.0 + self.settings.start_timeout.0 + GATE_GRACE;
        Ok(self.gate.close(&triggered, limit)?)
    }

    /// Kills what has not stopped in time, and waits for the end of it.
    fn finish_stop(&self, units: &[String], said: systemd::Error) -> Result<(), Error> {
        let running = |all: &[Properties]| -> Vec<String> {
            let states = units.iter().zip(all);
            states.filter(|(_, properties)| !is_down(properties)).map(|(unit, _)| unit.clone()).collect()
        };
        let left = running(&systemd::show(units, &["ActiveState"])?);
        if left.is_empty() {
            return Ok(());
        }
        if !matches!(said, systemd::Error::TimedOut { .. }) {
            return Err(said.into());
        }
        tracing::warn!(units = left.join(", "), "services do not stop and are killed");
        systemd::kill(&left)?;
        let begin = Instant::now();
        loop {
            let all = systemd::show(units, &["ActiveState"])?;
            let left = running(&all);
            if left.is_empty() {
                return Ok(());
            }
            if begin.elapsed() >= AFTER_KILL {
                let state = all.iter().map(|properties| properties.get("ActiveState")).collect::<Vec<_>>();
                return Err(Error::Unstoppable { units: left.join(", "), state: state.join(", ") });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start(&self, units: &[String]) -> Result<(), Error> {
        let limit = self.settings.start_timeout.0;
        match systemd::start(units, limit) {
            Err(refused @ systemd::Error::Refused { .. }) if hit_start_limit(units) => {
                tracing::debug!(%refused, "the start limit is cleared");
                systemd::reset_failed(units)?;
                Ok(systemd::start(units, limit)?)
            }
            started => Ok(started?),
        }
    }

    /// Replaces what runs. Units that do not stop in time are killed, and so come to their start.
    fn replace(&self, units: &[String]) -> Result<(), Error> {
        let running = units.iter().zip(systemd::show(units, &["ActiveState"])?);
        let running: Vec<_> =
            running.filter(|(_, state)| !is_down(state)).map(|(unit, _)| unit.clone()).collect();
        if !running.is_empty() {
            let limit = self.settings.stop_timeout.0;
            match systemd::restart(&running, limit) {
                Err(systemd::Error::TimedOut { .. }) => {
                    let all = systemd::show(&running, &["ActiveState", "SubState"])?;
                    let states = running.iter().zip(&all);
                    let stuck: Vec<_> = states
                        .filter(|(_, state)| state.get("ActiveState") == "deactivating")
                        .map(|(unit, _)| unit.clone())
                        .collect();
                    if !stuck.is_empty() {
                        tracing::warn!(units = stuck.join(", "), "services do not stop and are killed");
                        systemd::kill(&stuck)?;
                    }
                }
                Err(systemd::Error::Refused { .. }) if hit_start_limit(&running) => {
                    systemd::reset_failed(&running)?;
                }
                done => done?,
            }
        }
        // Those that were down, and the rest of restarts that were slow: a start waits for a job that runs already.
        self.start(units)
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
        let units = services_of(&target.units);
        self.close_gate(&units)?;
        match systemd::stop(&units, self.settings.stop_timeout.0) {
            Ok(()) => {}
            Err(said) => self.finish_stop(&units, said)?,
        }
        self.are_stopped.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn ensure_running(&self, target: &Target) -> Result<(), Error> {
        let units = &target.units;
        if !self.are_untriggered.swap(false, Ordering::SeqCst) {
            self.gate.open()?;
            revive_triggers(units)?;
        }
        self.has_forgotten.store(false, Ordering::SeqCst);
        if self.are_stopped.swap(false, Ordering::SeqCst) {
            return self.start(units);
        }
        match self.settings.action {
            Action::Restart => {
                // Sockets and the like stay up: a restart would refuse connections.
                let (services, others): (Vec<_>, Vec<_>) =
                    units.iter().cloned().partition(|unit| unit.ends_with(".service"));
                self.start(&others)?;
                self.replace(&services)
            }
            Action::ReloadOrRestart => {
                let limit = self.settings.stop_timeout.0 + self.settings.start_timeout.0;
                Ok(systemd::reload_or_restart(units, limit)?)
            }
            Action::StopStart => self.replace(units),
            Action::None => Ok(()),
        }
    }

    fn forget_failures(&self, target: &Target) {
        if self.has_forgotten.swap(true, Ordering::SeqCst) {
            return;
        }
        // Units that are not loaded have no failures to forget.
        if let Err(error) = systemd::reset_failed(&target.units) {
            tracing::debug!(%error, "start limits are left as they are");
        }
    }

    fn last_words(&self, target: &Target) -> Vec<String> {
        target.units.iter().flat_map(|unit| systemd::journal_tail(unit, LAST_WORDS)).collect()
    }
}

/// Units to stop: sockets, paths and timers stay up.
fn services_of(units: &[String]) -> Vec<String> {
    let stays = |unit: &String| [".socket", ".path", ".timer"].iter().any(|kind| unit.ends_with(kind));
    units.iter().filter(|unit| !stays(unit)).cloned().collect()
}

/// Starts sockets, paths and timers that failed with the service that they trigger: systemd closes a socket whose service
/// crashes again and again.
fn revive_triggers(units: &[String]) -> Result<(), Error> {
    let all = systemd::show(units, &["TriggeredBy"])?;
    let mut triggers: Vec<_> =
        all.iter().flat_map(|properties| properties.words("TriggeredBy").map(str::to_owned)).collect();
    triggers.sort();
    triggers.dedup();
    let states = systemd::show(&triggers, &["ActiveState"])?;
    let failed: Vec<_> = triggers
        .into_iter()
        .zip(&states)
        .filter(|(_, state)| state.get("ActiveState") == "failed")
        .map(|(unit, _)| unit)
        .collect();
    systemd::reset_failed(&failed)?;
    Ok(systemd::start(&failed, REVIVE)?)
}

fn is_down(properties: &Properties) -> bool {
    ["inactive", "failed"].contains(&properties.get("ActiveState"))
}

fn hit_start_limit(units: &[String]) -> bool {
    systemd::show(units, &["Result"])
        .is_ok_and(|all| all.iter().any(|properties| properties.get("Result") == "start-limit-hit"))
}
