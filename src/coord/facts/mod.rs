//! What nodes and operators write on shared storage: each fact once, never changed, its name never used again.
//!
//! Each fact names the digest of what it answers, from the proposal to the end. Keys that this program does not know
//! are ignored; a `format` or a `kind` that it does not know makes the file bad, and a bad file says nothing. The name of
//! a fact is part of what is summed or signed (see [`seal`]).

mod gates;
pub mod names;
mod own;
mod proposal;
pub mod seal;

use serde::{Deserialize, Serialize};

pub use gates::{
    Before, Finished, Go, GoDecision, Gone, Halt, Outcome, OutcomeDecision, Plan, PlanDecision, Refused,
    SeenFacts, Start, StartDecision, Ticket, Void, WaiveTicket, Wave,
};
pub use own::{Armed, Beside, ClockSeen, Closed, Moments, Report, Step, Vote, Yes};
pub use proposal::{
    Fleet, Id, Listed, Members, Page, Proposal, ProposalTimes, Replace, Rolling, Seconds, Twin, Waive, Wanted,
};
pub use seal::{Bad, FACT_BYTES_MAX, Opened, Seal};

/// The format of facts that this program writes and reads.
pub const FORMAT: u32 = 2;

/// The most members that a rollout may have.
pub const MEMBERS_MAX: usize = 20_000;

/// The most that a proposal may name itself: what has more has pages.
pub const MEMBERS_NAMED_MAX: usize = 2000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// `FLEET`: this directory is this fleet's.
    Fleet(Fleet),
    /// `members/000003`.
    Members(Members),
    /// `members/p.<digest>`.
    Page(Page),
    /// `members/replace.<node>.1`.
    Replace(Replace),
    /// `nodes/<node>/id`.
    Id(Id),
    /// `nodes/<node>/twin.<place>`.
    Twin(Twin),
    /// `rollouts/000017`.
    Proposal(Box<Proposal>),
    /// `rollouts/000017.gone`. The following are in the directory of the rollout's decisions.
    Gone(Gone),
    /// `plan`.
    Plan(Plan),
    /// `go`.
    Go(Go),
    /// `start`.
    Start(Start),
    /// `outcome`.
    Outcome(Outcome),
    /// `waive.<node>`.
    Waive(Waive),
    /// `t.0004`.
    Ticket(Ticket),
    /// `wave.2`.
    Wave(Wave),
    /// `halt`.
    Halt(Halt),
    /// `void`.
    Void(Void),
    /// `refused.<node>`.
    Refused(Refused),
    /// `waive.t.0004`.
    WaiveTicket(WaiveTicket),
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

/// The format of a line that may be a fact of another program version.
pub fn format_of(line: &str) -> Option<u32> {
    serde_json::from_str::<Format>(line).ok().map(|format| format.format)
}

impl Fact {
    /// The JSON line of this fact.
    pub fn line(&self) -> String {
        // Serialising plain data to a string cannot fail; an empty line would not open again.
        serde_json::to_string(&Line { format: FORMAT, fact: self }).unwrap_or_default()
    }

    pub fn parse(line: &str) -> Result<Self, Bad> {
        let format: Format =
            serde_json::from_str(line).map_err(|error| Bad::new(format!("it cannot be parsed: {error}")))?;
        if format.format != FORMAT {
            return Err(other_format(format.format));
        }
        serde_json::from_str(line).map_err(|error| Bad::new(format!("it cannot be parsed: {error}")))
    }
}

/// Why a fact of another format says nothing.
pub fn other_format(format: u32) -> Bad {
    Bad::new(format!(
        "its format is {format}, and this cutover reads format {FORMAT}: a fleet's directory is of one format"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    #[test]
    fn a_fact_is_read_as_it_was_written() {
        let fact = Fact::Ticket(Ticket {
            rollout: 17,
            proposal: Digest::of(b"p"),
            ticket: 4,
            node: "edge-01".parse().unwrap(),
            instance: "i".into(),
            back: false,
            row: 1,
            at: None,
            turn_ms: Some(21_000),
            before: ["12 good", "7 back left", "- waived", "3"]
                .map(|text| text.to_owned().try_into().unwrap())
                .into(),
        });
        let line = fact.line();
        assert!(line.starts_with("{\"format\":2,\"kind\":\"ticket\",\"rollout\":17,"), "{line}");
        assert_eq!(Fact::parse(&line).unwrap(), fact);
        assert_eq!(Fact::parse(&line.replace("{\"format", "{\"new\":[1],\"format")).unwrap(), fact);
    }

    #[test]
    fn unknown_formats_and_kinds_say_nothing() {
        for line in [
            "",
            "{}",
            "[]",
            "{\"format\":1,\"kind\":\"fleet\",\"fleet\":\"a\",\"id\":\"b\"}",
            "{\"format\":2,\"kind\":\"new\",\"fleet\":\"a\",\"id\":\"b\"}",
            "{\"format\":2,\"fleet\":\"a\",\"id\":\"b\"}",
            "{\"format\":2,\"kind\":\"fleet\",\"fleet\":\"a\",\"id\":\"b\"} x",
            &"[".repeat(60_000),
        ] {
            assert!(Fact::parse(line).is_err(), "{line:.60}");
        }
    }
}
