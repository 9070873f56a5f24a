//! What one screen on a rollout says: its gates, who is waited for, how far it has come, and why.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::heard;
use super::report::{moment_from, of_rolling, scan};
use crate::cli::failure::Error;
use crate::coord::NodeName;
use crate::coord::account::Account;
use crate::coord::facts::Fact;
use crate::coord::look::{Look, found};
use crate::coord::operate::{Operator, some_of};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::Rollout;
use crate::coord::rules::gate as rules;
use crate::coord::rules::rolling::Member as Turn;
use crate::coord::rules::synchronous::{Go, Member, Outcome, Plan};
use crate::coord::rules::{Health, Ms};
use crate::coord::settings::Mode;
use crate::coord::synchronous::{Synchronous, timestamp};

/// What was read of a rollout.
pub(super) struct Page {
    pub gates: Vec<Gate>,
    pub account: Account,
    pub waits: Waits,
    /// How far a rolling rollout has come.
    pub progress: Option<String>,
    /// How each cell stands.
    pub cells: Vec<CellLine>,
    pub remarks: Vec<String>,
    /// Who refuses the release, and why. It may have come to it since.
    pub refused: Vec<(NodeName, String)>,
    pub why: Vec<String>,
}

/// A gate, and who put it when and why.
pub(super) struct Gate {
    name: &'static str,
    says: &'static str,
    by: Option<String>,
    made: Option<Timestamp>,
    why: String,
    /// What follows from it, or when it will be decided.
    then: String,
}

/// How a cell stands, in a word, and why.
pub(super) struct CellLine {
    pub name: NodeName,
    pub wave: u32,
    pub state: &'static str,
    pub why: String,
}

impl CellLine {
    pub fn line(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        format!("  cell {:<12} wave {}  {}{why}", self.name, self.wave, self.state)
    }

    pub fn value(&self) -> Value {
        json!({"cell": self.name, "wave": self.wave, "state": self.state, "why": self.why})
    }
}

/// How a cell of a rollout stands: `seen` is what the turns say of it.
fn cell_line(part: &Synchronous<'_>, seen: &Turn, name: &NodeName) -> CellLine {
    let view = &part.view;
    let missing: Vec<_> = part.who(|member| member.vote.is_none()).iter().map(ToString::to_string).collect();
    let (state, why) = match (rules::ended(view), view.plan, view.go) {
        _ if seen.waived => ("waived", String::new()),
        (Some(rules::Ended::Kept), _, _) => ("has it", String::new()),
        (Some(rules::Ended::RolledBack), _, _) if seen.report.is_none() => ("going back", words_of(part)),
        (Some(rules::Ended::RolledBack), _, _) => ("went back", words_of(part)),
        (Some(rules::Ended::Aborted | rules::Ended::Cancelled), _, _) => ("called off", words_of(part)),
        (None, Some(_), Some(_)) => ("on trial", String::new()),
        (None, Some(_), None) => ("arming", String::new()),
        (None, None, _) if missing.is_empty() => ("ready", String::new()),
        (None, None, _) => ("waits", format!("no vote of {} yet", missing.join(", "))),
    };
    CellLine { name: name.clone(), wave: seen.wave, state, why }
}

fn words_of(part: &Synchronous<'_>) -> String {
    part.failure().or_else(|| part.why.clone()).unwrap_or_default()
}

impl Gate {
    pub fn line(&self) -> String {
        let made = self.made.map(|at| at.strftime(" %H:%M:%S").to_string()).unwrap_or_default();
        let by = self.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        let then = if self.then.is_empty() { String::new() } else { format!("  {}", self.then) };
        format!("  {:<8} {:<9}{made}{by}{why}{then}", self.name, self.says).trim_end().to_owned()
    }

    pub fn value(&self) -> Value {
        json!({"gate": self.name, "says": self.says, "by": self.by, "made": self.made, "why": self.why})
    }
}

/// Who is waited for, for what, and since when.
#[derive(Default)]
pub(super) struct Waits {
    what: &'static str,
    who: Vec<String>,
    since: Option<Timestamp>,
    otherwise: String,
}

impl Waits {
    pub fn text(&self, now: Timestamp) -> String {
        if self.who.is_empty() {
            return self.otherwise.clone();
        }
        let more = self.who.len().saturating_sub(5);
        let names = self.who.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let since = self.since.filter(|since| *since <= now).map_or(String::new(), |since| {
            let waited = now.as_second() - since.as_second();
            format!(", since {} ({waited} s)", since.strftime("%H:%M:%S"))
        });
        format!("waits for {} {names}{more}{since}", self.what)
    }

    pub fn value(&self) -> Vec<Value> {
        let each = |node: &String| json!({"node": node, "for": self.what, "since": self.since});
        self.who.iter().map(each).collect()
    }
}

impl Page {
    /// Reads all of a rollout.
    ///
    /// # Errors
    /// When the storage is away.
    pub fn read(operator: &mut Operator<'_>, rollout: &Rollout, now: Timestamp) -> Result<Self, Error> {
        match rollout.proposal.mode {
            Mode::Rolling | Mode::Cells => rolling(operator, rollout, now),
            Mode::Synchronous | Mode::Independent => synchronous(operator, rollout, now),
        }
    }
}

fn synchronous(operator: &mut Operator<'_>, rollout: &Rollout, now: Timestamp) -> Result<Page, Error> {
    let mut follow = Synchronous::new(rollout.clone(), usize::MAX, operator.voice());
    heard(follow.read_gates(operator.board))?;
    heard(scan(operator.board, &mut follow))?;
    Ok(Page {
        gates: gates(&follow, now),
        cells: Vec::new(),
        account: Account::of_synchronous(&follow, now),
        waits: waits(&follow, now),
        progress: None,
        remarks: follow.remarks.clone(),
        refused: Vec::new(),
        why: why(&follow, now),
    })
}

fn clock(now: Timestamp, ms: Ms) -> String {
    timestamp(ms).map(|at| moment_from(now, at)).unwrap_or_default()
}

fn gates(follow: &Synchronous<'_>, now: Timestamp) -> Vec<Gate> {
    let times = follow.rollout.times();
    let clock = |ms: Ms| clock(now, ms);
    let gate = |gate: rules::Gate, says: &'static str, then: String| {
        let name = gate.name();
        let place = follow.rollout.gate(gate);
        let said = follow.texts.get(&gate).map(|text| found(&place, text, None));
        let (by, made, why) = match said {
            Some(Look::Found(found)) => match found.fact {
                Fact::Plan(said) => (Some(said.by), said.made, said.why),
                Fact::Go(said) => (Some(said.by), said.made, said.why),
                Fact::Outcome(said) => (Some(said.by), said.made, said.why),
                _ => (None, None, String::new()),
            },
            _ => (None, None, String::new()),
        };
        Gate { name, says, by, made, why, then }
    };
    // A gate that stands there, and says nothing, is decided, and nobody knows how.
    let open = |gate: rules::Gate, then: String| match &follow.unreadable {
        Some(_) => Gate {
            name: gate.name(),
            says: "unreadable",
            by: None,
            made: None,
            why: String::new(),
            then: String::new(),
        },
        None => Gate { name: gate.name(), says: "open", by: None, made: None, why: String::new(), then },
    };
    let at = match follow.view.plan {
        Some(Plan::Commit { at }) => at,
        Some(Plan::Abort) => return vec![gate(rules::Gate::Plan, "abort", String::new())],
        None => {
            let by = format!("decided by {} at the latest", clock(follow.rollout.vote_by()));
            return vec![open(rules::Gate::Plan, by)];
        }
    };
    let mut gates = vec![gate(rules::Gate::Plan, "commit", format!("switch at {}", clock(at)))];
    match follow.view.go {
        None => gates
            .push(open(rules::Gate::Go, format!("decided by {} at the latest", clock(at - times.window())))),
        Some(Go::Cancel) => gates.push(gate(rules::Gate::Go, "cancel", String::new())),
        Some(Go::Go) => gates.push(gate(rules::Gate::Go, "go", String::new())),
    }
    match follow.view.outcome {
        None if follow.view.go == Some(Go::Go) => {
            let by = format!(
                "trial until {}, decided by {} at the latest",
                clock(at + times.stop + times.trial),
                clock(times.reported_by(at))
            );
            gates.push(open(rules::Gate::Outcome, by));
        }
        None => {}
        Some(Outcome::Keep) => gates.push(gate(rules::Gate::Outcome, "keep", String::new())),
        Some(Outcome::Rollback { at }) => {
            // Where an operator ended it nobody waits for a moment.
            let then = if at == 0 { String::new() } else { format!("back at {}", clock(at)) };
            gates.push(gate(rules::Gate::Outcome, "rollback", then));
        }
    }
    gates
}

/// What becomes of a synchronous rollout in which nobody has a part any more.
pub const NOBODY_IS_LEFT: &str = "nobody is left to decide, and `cutover fleet abort` ends it";

/// What is to be done where a gate cannot be read.
const MENDS_A_GATE: &str = "`cutover fleet repair` puts it back on a node that has read it; where none has, `cutover fleet abort` ends the \
                            rollout";

fn waits(follow: &Synchronous<'_>, now: Timestamp) -> Waits {
    let view = &follow.view;
    if let Some(why) = &follow.unreadable {
        // Nobody decides beside a gate that nobody can read, and nobody is missing.
        return Waits { otherwise: format!("waits for a person: {why}"), ..Waits::default() };
    }
    if let (Some(Plan::Commit { at }), None) = (view.plan, view.go)
        && follow.rollout.begins_after(now).is_some()
    {
        return Waits { otherwise: format!("waits for its moment, {}", clock(now, at)), ..Waits::default() };
    }
    let otherwise = if view.members.iter().all(|member| member.waived) {
        format!("all members are waived: {NOBODY_IS_LEFT}")
    } else {
        "waits for a decision".into()
    };
    let missing = |what, since, is_missing: fn(&Member) -> bool| Waits {
        what,
        who: follow.who(is_missing).iter().map(ToString::to_string).collect(),
        since,
        otherwise: otherwise.clone(),
    };
    let made = |gate: rules::Gate| match follow
        .texts
        .get(&gate)
        .map(|text| found(&follow.rollout.gate(gate), text, None))
    {
        Some(Look::Found(found)) => match found.fact {
            Fact::Plan(said) => said.made,
            _ => None,
        },
        _ => None,
    };
    match (view.plan, view.go) {
        (Some(Plan::Abort), _) | (_, Some(Go::Cancel)) => Waits::default(),
        (None, _) => {
            let since = Some(follow.rollout.proposal.created);
            missing("the vote of", since, |member| member.vote.is_none())
        }
        (Some(Plan::Commit { .. }), None) => {
            missing("the arming of", made(rules::Gate::Plan), |member| !member.armed)
        }
        (Some(Plan::Commit { at }), Some(Go::Go)) => {
            missing("the report of", timestamp(at), |member| member.report.is_none())
        }
    }
}

fn why(follow: &Synchronous<'_>, now: Timestamp) -> Vec<String> {
    if follow.unreadable.is_some() {
        return vec![MENDS_A_GATE.into()];
    }
    let times = follow.rollout.times();
    let clock = |ms| clock(now, ms);
    let mut lines = Vec::new();
    match (follow.view.plan, follow.view.go, follow.view.outcome) {
        (None, _, _) => {
            lines.push(format!(
                "if a vote is missing at {}, nobody switches",
                clock(follow.rollout.vote_by())
            ));
        }
        (Some(Plan::Commit { at }), None, _) => {
            lines.push(format!("if a node is not armed by {}, nobody switches", clock(at - times.window())));
        }
        (Some(Plan::Commit { at }), Some(Go::Go), None) => {
            lines
                .push(format!("if a node has not switched by {}, all go back", clock(times.switched_by(at))));
            lines.push(format!(
                "if a good report is missing at {}, all go back",
                clock(times.reported_by(at))
            ));
        }
        _ => {}
    }
    lines.extend(follow.failure());
    if rules::ended(&follow.view).is_none() {
        lines.push("a member that lives says in `cutover status` what it waits for".into());
        lines.push("a dead member: `cutover fleet waive NODE`; to stop: `cutover fleet abort`".into());
    }
    lines
}

fn rolling(operator: &mut Operator<'_>, rollout: &Rollout, now: Timestamp) -> Result<Page, Error> {
    let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, operator.voice()) else {
        return Err(Error::Fleet("the proposal has no terms".into()));
    };
    heard(follow.read(operator.board))?;
    heard(follow.read_waivers(operator.board))?;
    let account = of_rolling(operator, &mut follow)?;
    let whose = if follow.cells.is_empty() { "" } else { "cell " };
    let mut who: Vec<String> = follow.busy().map(|member| format!("{whose}{member}")).collect();
    let begins = rollout.begins_after(now).filter(|_| follow.view.tickets().next().is_none());
    if who.is_empty() && !follow.view.halt && begins.is_none() {
        who.extend(follow.awaited().map(|member| format!("{whose}{member}")));
    }
    let (what, otherwise) = if follow.view.end.is_some() && !follow.is_settled() {
        ("going back on", "halted: members go back".into())
    } else if follow.view.halt {
        ("the end of the switch on", "halted".into())
    } else if let Some(moment) = begins {
        ("", format!("waits for its moment, {}", moment_from(now, moment)))
    } else {
        ("the switch of", nobody_to_wait_for(&follow))
    };
    let progress = format!(
        "  wave {} is open; {} of {}{} out of service; {} of {}{} have it",
        follow.view.wave,
        follow.view.unfinished(),
        follow.terms.at_once(),
        if follow.cells.is_empty() { "" } else { " cells" },
        follow.view.members.iter().filter(|member| member.report == Some(Health::Good)).count(),
        follow.view.members.len(),
        if follow.cells.is_empty() { "" } else { " cells" },
    );
    let cells = follow.cells.iter().zip(&follow.view.members).zip(&follow.rollout.proposal.members);
    let cells = cells.map(|((part, seen), name)| cell_line(part, seen, name)).collect();
    let mut why = Vec::new();
    if let Some(node) = follow.broken() {
        why.push(format!(
            "{node} could not go back, and keeps its place: once it is well, `cutover fleet waive {node} {}` frees it",
            follow.rollout.number
        ));
    } else if !follow.is_settled() && follow.busy().next().is_some() {
        why.push("a dead member keeps its place: `cutover fleet waive NODE` frees it".to_owned());
    }
    why.extend(follow.failure());
    Ok(Page {
        gates: Vec::new(),
        cells,
        account,
        waits: Waits { what, who, since: None, otherwise },
        progress: Some(progress),
        remarks: follow.remarks.clone(),
        refused: follow.refused().map(|(node, said)| (node.clone(), said)).collect(),
        why,
    })
}

/// What a rolling rollout comes to when everybody of the open waves has had a turn.
fn nobody_to_wait_for(follow: &Rolling<'_>) -> String {
    let view = &follow.view;
    let spent: Vec<_> = follow.spent().collect();
    if let (false, Some((first, _))) = (view.are_good(view.wave + 1), spent.first()) {
        let names = some_of(&spent.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        // Who only left may do better; where it failed, the release is banned.
        let again = if spent.iter().all(|(_, health)| *health == Health::Left) {
            let version = &follow.rollout.proposal.release.version;
            format!("`cutover fleet propose {version} --supersede` gives it another one, ")
        } else {
            String::new()
        };
        if follow.cells.is_empty() {
            format!(
                "{names} had a turn, and does not run it: {again}`cutover fleet waive {first}` lets the others go on"
            )
        } else {
            format!(
                "cell {names} had a turn, and does not run it: {again}`cutover fleet waive NODE` for each of its nodes lets the others go on"
            )
        }
    } else if !view.are_good(view.wave + 1) {
        "waits for a member to take its turn".into()
    } else if view.are_good(u32::MAX) {
        "all have it; the next run of any member ends it".into()
    } else {
        let soak = crate::types::Span(Duration::from_millis(follow.terms.soak.ms().unsigned_abs()));
        format!("wave {} is good, and stays alone for {soak}: then the next one opens", view.wave)
    }
}
