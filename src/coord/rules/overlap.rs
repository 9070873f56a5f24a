//! Between stop and start of a switch in which the old and the new release never serve at the same time.

use super::synchronous::{Local, StartGate, View};
use super::{Health, Ms, Times};

/// The answer to "may services start?", with overlap `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MayStart {
    Now,
    Wait,
    /// Say that this node has stopped.
    TellStopped,
    /// Say that the new release is stopped again here.
    TellCleared,
    Decide(StartGate),
    /// Go back to the old release.
    Back,
}

/// Between stop and start of a switch at `at`, with overlap `none`.
///
/// Alone (no storage past the deadline) the node starts the old release: going back waits for nobody.
pub fn may_start(at: Ms, view: &View, local: Local, times: &Times) -> MayStart {
    let is_late = local.now > times.switched_by(at);
    match view.start {
        Some(StartGate::Back) => return MayStart::Back,
        Some(StartGate::Start) if view.outcome.is_none() && !view.contradiction => return MayStart::Now,
        Some(StartGate::Start) => return MayStart::Back,
        None => {}
    }
    if local.now > times.switched_by(at) + times.back && !local.has_storage {
        return MayStart::Back;
    }
    if is_late || view.outcome.is_some() || view.contradiction || view.any(|member| member.report.is_some()) {
        return MayStart::Decide(StartGate::Back);
    }
    if !view.mine().stopped {
        return MayStart::TellStopped;
    }
    if view.all(|member| member.stopped) {
        return MayStart::Decide(StartGate::Start);
    }
    MayStart::Wait
}

/// Between stop and start of going back at `at`, with overlap `none`: bounded, whatever others do.
pub fn may_start_back(at: Ms, view: &View, local: Local, times: &Times) -> MayStart {
    let nobody_started = view.start != Some(StartGate::Start);
    if nobody_started || local.now > at + times.stop + 3 * times.poll + times.visibility {
        return MayStart::Now;
    }
    if !view.mine().cleared {
        return MayStart::TellCleared;
    }
    if view.all(|member| member.cleared || member.report == Some(Health::Left)) {
        return MayStart::Now;
    }
    MayStart::Wait
}
