//! What to type next, for each state of a node.

use super::membership;
use super::view::{Doing, Status};
use crate::types::record::Record;

/// What a release may be called of which only the one who installed it knows the name.
pub const BY_HAND: &str = "by-hand";

/// The commands that help now, each with what it does.
pub(super) fn next(status: &Status, record: Option<&Record>) -> Vec<String> {
    let mut lines = Vec::new();
    let is_left = status.update.as_ref().is_some_and(|update| update.pid.is_none());
    match status.state {
        Doing::NeedsPerson => {
            lines.push(line("log", "what happened"));
            lines.push(line("health", "what the checks say now"));
            if status.problems.is_empty() {
                lines.push(line("recover", "try again what was left, after repairing the cause"));
            }
            // With files that cannot be believed nothing goes forth or back.
            let gone = record.and_then(|record| record.from.as_ref()).map(|from| &from.version);
            if let Some(other) = status
                .previous
                .as_ref()
                .filter(|other| status.problems.is_empty() && Some(&other.version) != gone)
            {
                lines.push(line(&format!("rollback {}", other.version), "go to that release instead"));
            }
        }
        Doing::Trial => {
            lines.push(line("commit", "keep the new release now"));
            lines.push(line("rollback --now", "end the trial and go back"));
            if is_left {
                lines.push(line("recover", "watch it again (under systemd a timer does so, too)"));
            }
        }
        Doing::Staged | Doing::Waiting => ready(status, is_left, &mut lines),
        Doing::InDoubt => {
            lines.push(line("fleet status --why", "what is waited for"));
            lines.push(line("fleet import --help", "bring the outcome by hand"));
            lines.push(line("rollback", "leave the rollout and go back"));
        }
        Doing::Voting => lines.push(line("fleet status", "who is waited for")),
        Doing::Staging | Doing::Warming | Doing::Switching | Doing::RollingBack => {
            if is_left {
                lines.push(line("recover", "finish or undo it"));
            } else {
                lines.push(line("status --watch", "see it go on"));
            }
        }
        Doing::Idle => at_rest(status, &mut lines),
    }
    lines
}

fn ready(status: &Status, is_left: bool, lines: &mut Vec<String>) {
    let is_blocked_by = |policy: &str| status.blocked.iter().any(|blocked| blocked.policy == policy);
    let is_sick = is_blocked_by("baseline");
    // What blocks says itself what to mend; no flag passes over that.
    let has_unfit_units = is_blocked_by("units");
    if status.hold.is_some() {
        lines.push(line("unhold", "let automatic switching go on"));
    } else if status.update.is_none() && is_sick {
        lines.push(line("health", "what the checks say now"));
    } else if status.update.is_none()
        && !has_unfit_units
        && !status.blocked.is_empty()
        && status.source.url.is_some()
    {
        lines.push(line("update --now", "don't wait for window, jitter or phase"));
    }
    if is_left {
        lines.push(line("recover", "call off what was interrupted"));
    } else if status.update.is_some() {
        lines.push(line("status --watch", "see it go on"));
        if status.hold.is_none() {
            lines.push(line("hold", "call the switch off, before it begins"));
        }
    } else if let Some(staged) = &status.staged {
        let (now, why) = match (has_unfit_units, is_sick) {
            (true, _) => ("", "once its units are mended"),
            (false, true) => (" --now", "although the old one is not healthy"),
            (false, false) => ("", "now"),
        };
        lines.push(line(&format!("switch {}{now}", staged.version), &format!("switch to it {why}")));
    }
}

/// How to see why a unit does not run.
pub(super) fn of_unit(unit: &str) -> String {
    format!("{:<30} why it does not run", format!("systemctl status {unit}"))
}

/// How to see what a fleet's directory allows this node.
pub(super) fn of_directory() -> String {
    line("fleet check", "what the fleet's directory lacks for this node")
}

/// How an adoption that was interrupted goes on.
pub(super) fn of_adoption() -> String {
    line("recover", "finish the adoption that was interrupted")
}

/// A command, and what it does.
fn line(command: &str, does: &str) -> String {
    format!("cutover {command:<21}  {does}")
}

fn at_rest(status: &Status, lines: &mut Vec<String>) {
    if status.unadopted {
        let current = std::path::Path::new(&status.root).join("current");
        lines.push(line(
            &format!("adopt {} --version {BY_HAND}", current.display()),
            "take over what was installed by hand, by this or another name",
        ));
        return;
    }
    if status.active.is_none() {
        match &status.source.url {
            Some(_) => lines.push(line("update", "install the channel's release")),
            None => lines.push(line("update --help", "install an archive")),
        }
        lines.push(line("adopt --help", "take over what was installed by hand"));
        return;
    }
    if status.blocked.iter().any(|blocked| blocked.policy == membership::BY_HAND) {
        lines.push(line("fleet resume", "lift the hold, and follow the fleet again"));
        return;
    }
    if status.hold.is_some() {
        lines.push(line("unhold", "let automatic switching go on"));
        return;
    }
    match &status.channel {
        Some(channel) if channel.newer && channel.banned => {
            lines.push(line("log", "why it was given up"));
            lines.push(line(&format!("mark-good {}", channel.version), "let it be tried again"));
        }
        Some(channel) if channel.newer => lines.push(line("update", "stage it, and switch to it")),
        Some(_) | None => {}
    }
    if let Some(back) = status.previous.as_ref().filter(|previous| previous.rollback.possible) {
        let to = format!("go back to {}", back.version);
        if back.rollback.asks.is_empty() {
            lines.push(line("rollback", &to));
        }
        for data in &back.rollback.asks {
            let what = if data == "keep" { "and leave the data as they are" } else { "and to its old data" };
            lines.push(line(&format!("rollback --data {data}"), &format!("{to}, {what}")));
        }
    }
}
