//! What nodes and operators write on shared storage: each fact once, never changed, its name never used again.
//!
//! Each fact names the digest of what it answers, from the proposal to the end. Keys that this program does not know
//! are ignored; a `format` or a `kind` that it does not know makes the file bad, and a bad file says nothing.

pub mod names;
pub mod seal;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use seal::{Bad, FACT_BYTES_MAX, Opened, Seal};

use super::name::NodeName;
use super::rules::{Health, Ms, Times, rolling::End};
use super::settings::{Mode, Overlap, WaveSetting};
use crate::types::{Digest, Version};

/// The format of facts that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The most members that a rollout may have.
pub const MEMBERS_MAX: usize = 2000;

/// A fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// `FLEET`: this directory is this fleet's.
    Fleet(Fleet),
    /// `members/000003`.
    Members(Members),
    /// `nodes/<node>/id`.
    Id(Id),
    /// `rollouts/000017`.
    Proposal(Box<Proposal>),
    /// `rollouts/000017.plan`.
    Plan(Plan),
    /// `rollouts/000017.go`.
    Go(Go),
    /// `rollouts/000017.start`.
    Start(Start),
    /// `rollouts/000017.outcome`.
    Outcome(Outcome),
    /// `rollouts/000017.waive.<node>`.
    Waive(Waive),
    /// `rollouts/000017.t.0004`.
    Ticket(Ticket),
    /// `rollouts/000017.wave.2`.
    Wave(Wave),
    /// `rollouts/000017.halt`.
    Halt(Halt),
    /// `nodes/<node>/000017.vote`.
    Vote(Vote),
    /// `nodes/<node>/000017.armed`.
    Armed(Armed),
    /// `nodes/<node>/000017.stopped`, `.switched`, `.cleared`.
    Step(Step),
    /// `nodes/<node>/000017.report`.
    Report(Report),
    /// `nodes/<node>/000017.closed`.
    Closed(Closed),
}

/// The directory of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Its name.
    pub fleet: String,
    /// Made once, at random: another directory has another one.
    pub id: String,
}

/// Who is in the fleet. The highest valid number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The fleet's id.
    pub fleet: String,
    /// The number of this list.
    pub list: u32,
    /// Who.
    pub members: Vec<Listed>,
    /// Who wrote it.
    pub by: String,
}

/// A node in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub node: NodeName,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its public key, in OpenSSH's form, where nodes sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A node's own entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// Its name.
    pub node: NodeName,
    /// The machine's id.
    pub machine: String,
    /// Made once, at random: a second machine of this name has another one.
    pub instance: String,
    /// The groups it asks to be in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its public key, where nodes sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The release that a rollout is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The product.
    #[serde(default)]
    pub name: String,
    /// Its name.
    pub version: Version,
    /// The digest of its manifest: what counts.
    pub digest: Digest,
}

/// One release for many nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The fleet's id.
    pub fleet: String,
    /// Its number, also in the file's name.
    pub rollout: u64,
    /// The digest of the proposal before it.
    pub prev: Option<Digest>,
    /// Synchronous or rolling.
    pub mode: Mode,
    /// What is to run.
    pub release: Wanted,
    /// The list that the members are from.
    pub members_list: u32,
    /// Who takes part.
    pub members: Vec<NodeName>,
    /// When it was made.
    pub created: Timestamp,
    /// After this nobody takes it up.
    pub expires: Timestamp,
    /// Who made it.
    pub by: String,
    /// Nobody switches before.
    pub not_before: Option<Timestamp>,
    /// Whether old and new may serve at once.
    pub overlap: Overlap,
    /// The times that all hold to.
    pub t: ProposalTimes,
    /// What a rolling rollout holds to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
}

/// What a rolling rollout holds to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// How many may be out of service at once.
    pub at_once: u32,
    /// Which part goes first.
    pub waves: Vec<WaveSetting>,
    /// How long each wave runs before the next.
    pub soak: Seconds,
    /// So many failures stop it.
    pub max_failed: u32,
}

/// The times of a proposal, in seconds, and the allowed error of clocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the same names as in `rules::Times`, with their meaning there")]
pub struct ProposalTimes {
    pub vote: Seconds,
    pub lead: Seconds,
    pub late: Seconds,
    pub stop: Seconds,
    pub trial: Seconds,
    pub settle: Seconds,
    pub back: Seconds,
    pub poll: Seconds,
    pub visibility: Seconds,
    pub skew_ms: u32,
}

impl From<ProposalTimes> for Times {
    fn from(t: ProposalTimes) -> Self {
        Self {
            vote: t.vote.ms(),
            lead: t.lead.ms(),
            late: t.late.ms(),
            stop: t.stop.ms(),
            trial: t.trial.ms(),
            settle: t.settle.ms(),
            back: t.back.ms(),
            poll: t.poll.ms(),
            visibility: t.visibility.ms(),
        }
    }
}

/// A length of time, in JSON a number of seconds; at most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Seconds(u32);

impl Seconds {
    /// From a duration, to the millisecond.
    pub fn new(duration: std::time::Duration) -> Self {
        Self(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
    }

    /// In milliseconds.
    pub fn ms(self) -> Ms {
        Ms::from(self.0)
    }
}

impl TryFrom<f64> for Seconds {
    type Error = Bad;

    fn try_from(seconds: f64) -> Result<Self, Bad> {
        let ms = seconds * 1000.0;
        if !(0.0..=f64::from(u32::MAX)).contains(&ms) {
            return Err(Bad::new("a time is out of range"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        Ok(Self(ms.round() as u32))
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> Self {
        Self::from(seconds.0) / 1000.0
    }
}

/// Which facts a decision rests on: the digest of each member's.
pub type SeenFacts = BTreeMap<NodeName, Digest>;

/// Gate 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// All switch, or nobody.
    pub decision: PlanDecision,
    /// When.
    pub at: Option<Timestamp>,
    /// Who put it.
    pub by: String,
    /// Why.
    pub why: String,
    /// On what it rests.
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanDecision {
    /// All switch.
    Commit,
    /// Nobody.
    Abort,
}

/// Gate 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub plan: Digest,
    /// All switch, or nobody.
    pub decision: GoDecision,
    /// Who put it.
    pub by: String,
    /// Why.
    pub why: String,
    /// On what it rests.
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 2 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoDecision {
    /// All switch at the instant of the plan.
    Go,
    /// Nobody.
    Cancel,
}

/// The gate between stop and start, with overlap `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Of this rollout.
    pub rollout: u64,
    /// The plan that it belongs to.
    pub plan: Digest,
    /// All start, or none.
    pub decision: StartDecision,
    /// Who put it.
    pub by: String,
}

/// What the gate between stop and start says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartDecision {
    /// All have stopped.
    Start,
    /// Not all have.
    Back,
}

/// Gate 3; in a rolling rollout, its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers: the plan; in a rolling rollout the proposal.
    pub answers: Digest,
    /// What becomes of the new release.
    pub decision: OutcomeDecision,
    /// When all go back.
    pub at: Option<Timestamp>,
    /// Who put it.
    pub by: String,
    /// Why.
    pub why: String,
    /// On what it rests.
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 3 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeDecision {
    /// It stays.
    Keep,
    /// All go back.
    Rollback,
    /// Rolling: its time was over before all had it.
    Partial,
    /// Rolling: stopped.
    Halted,
}

impl OutcomeDecision {
    /// The end of a rolling rollout that it means.
    pub fn end(self) -> End {
        match self {
            Self::Keep => End::Keep,
            Self::Partial => End::Partial,
            Self::Halted | Self::Rollback => End::Halted,
        }
    }
}

/// Go on without this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waive {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Without whom.
    pub node: NodeName,
    /// Who said so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// A place in a rolling rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Its number.
    pub ticket: u32,
    /// Whose it is.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
}

/// A part of the fleet may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Its number, from 1: wave 0 is open from the beginning.
    pub wave: u32,
    /// Who opened it.
    pub by: String,
}

/// No further ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Who stopped it.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Whether a node can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// In this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Who.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// Staged, verified, healthy before: or not.
    pub vote: Yes,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it runs.
    pub running: Option<Version>,
    /// What it has seen of the new release beside that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// What a node has seen of a release before it votes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// It ran beside the old one, and was well.
    Rehearsed,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Yes {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// A clock against the storage's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockSeen {
    /// The storage's clock less this node's, in milliseconds.
    pub offset_ms: f64,
    /// How wrong that may be.
    pub error_ms: f64,
}

/// A node holds the instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Armed {
    /// In this rollout.
    pub rollout: u64,
    /// What it answers.
    pub plan: Digest,
    /// Who.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// The instant.
    pub at: Timestamp,
    /// Its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockSeen>,
}

/// A node has come so far: the file's name says how far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// In this rollout.
    pub rollout: u64,
    /// The plan that it follows.
    pub plan: Digest,
    /// Who.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// When, by its clock.
    pub at: Timestamp,
    /// How long after the agreed instant.
    pub late_ms: f64,
    /// When its services began to stop. This and the next for people: nothing is decided by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
    /// When its services ran on the new release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

/// How the new release does on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In this rollout.
    pub rollout: u64,
    /// What it answers: the plan; in a rolling rollout the proposal.
    pub answers: Digest,
    /// Who.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// How.
    pub health: Health,
    /// Since when, by its clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why, unless good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long its service was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
}

/// What a node runs in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// In this rollout.
    pub rollout: u64,
    /// What it answers: the proposal.
    pub proposal: Digest,
    /// Who.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// What it runs.
    pub running: Option<Version>,
    /// It runs this by an operator's hand, not by the rollout.
    #[serde(default)]
    pub by_hand: bool,
    /// When it had gone back, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_at: Option<Timestamp>,
    /// How long its service was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    format: u32,
    #[serde(flatten)]
    fact: &'a Fact,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Fact {
    /// The JSON line of this fact.
    pub fn line(&self) -> String {
        // Serialising plain data to a string cannot fail; an empty line would not open again.
        serde_json::to_string(&Line { format: FORMAT, fact: self }).unwrap_or_default()
    }

    /// Reads a JSON line.
    pub fn parse(line: &str) -> Result<Self, Bad> {
        let format: Format =
            serde_json::from_str(line).map_err(|error| Bad::new(format!("it is no fact: {error}")))?;
        if format.format != FORMAT {
            return Err(Bad::new(format!("its format {} is unknown", format.format)));
        }
        serde_json::from_str(line).map_err(|error| Bad::new(format!("it is no fact: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_read_as_it_was_written() {
        let fact = Fact::Ticket(Ticket {
            rollout: 17,
            proposal: Digest::of(b"p"),
            ticket: 4,
            node: "edge-01".parse().unwrap(),
            instance: "i".into(),
        });
        let line = fact.line();
        assert!(line.starts_with("{\"format\":1,\"kind\":\"ticket\",\"rollout\":17,"), "{line}");
        assert_eq!(Fact::parse(&line).unwrap(), fact);
        assert_eq!(Fact::parse(&line.replace("{\"format", "{\"new\":[1],\"format")).unwrap(), fact);
    }

    #[test]
    fn unknown_formats_and_kinds_say_nothing() {
        for line in [
            "",
            "{}",
            "[]",
            "{\"format\":2,\"kind\":\"fleet\",\"fleet\":\"a\",\"id\":\"b\"}",
            "{\"format\":1,\"kind\":\"new\",\"fleet\":\"a\",\"id\":\"b\"}",
            "{\"format\":1,\"fleet\":\"a\",\"id\":\"b\"}",
            "{\"format\":1,\"kind\":\"fleet\",\"fleet\":\"a\",\"id\":\"b\"} x",
            &"[".repeat(60_000),
        ] {
            assert!(Fact::parse(line).is_err(), "{line:.60}");
        }
    }
}
