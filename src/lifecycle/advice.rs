//! What to type next, for each state of a node.

use super::status::{Doing, Status};
use crate::types::record::Record;

/// The commands that help now, each with what it does.
pub fn next(status: &Status, record: Option<&Record>) -> Vec<String> {
    let line = |command: &str, does: &str| format!("cutover {command:<22} {does}");
    let back = status.previous.as_ref().filter(|previous| previous.rollback.possible);
    let mut lines = Vec::new();
    match status.state {
        Doing::NeedsPerson => {
            lines.push(line("log", "what happened"));
            lines.push(line("health", "what the checks say now"));
            lines.push(line("recover", "try again what was left, after repairing the cause"));
            if record.is_some() {
                lines.push(line("rollback VERSION", "go to another release instead"));
            }
        }
        Doing::Trial => {
            lines.push(line("commit", "keep the new release now"));
            lines.push(line("rollback --now", "end the trial and go back"));
        }
        Doing::Staged | Doing::Waiting => {
            if status.hold.is_some() {
                lines.push(line("unhold", "let automatic switching go on"));
            }
            if let Some(staged) = &status.staged {
                lines.push(line(&format!("switch {}", staged.version), "switch to it now"));
            }
        }
        Doing::InDoubt => {
            lines.push(line("fleet status --why", "what is waited for"));
            lines.push(line("fleet import FILE", "bring the outcome by hand"));
            lines.push(line("rollback", "leave the rollout and go back"));
        }
        Doing::Voting => lines.push(line("fleet status", "who is waited for")),
        Doing::Staging | Doing::Warming | Doing::Switching | Doing::RollingBack => {
            lines.push(line("status --watch", "see it go on"));
        }
        Doing::Idle => {
            if status.active.is_none() {
                lines.push(line("update", "install the channel's release"));
                lines.push(line("adopt PATH", "take over what was installed by hand"));
            } else if status.hold.is_some() {
                lines.push(line("unhold", "let automatic switching go on"));
            } else if let Some(back) = back {
                lines.push(line("rollback", &format!("go back to {}", back.version)));
            }
        }
    }
    lines
}
