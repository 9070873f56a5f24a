//! The `[fleet]` table of the configuration.

use serde::{Deserialize, Serialize};

use super::name::{CellName, NodeName};
use crate::types::Span;

/// How the nodes of a fleet move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each for itself; nothing is shared.
    #[default]
    Independent,
    /// A few at a time.
    Rolling,
    /// All at one instant, or none.
    Synchronous,
    /// The nodes of a cell (a rack, a site, a pair) at one instant, or none of them; cells take turns.
    Cells,
}

/// Whether old and new may serve at the same time, on different nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Never: all stop, and start only when all have stopped.
    None,
    /// For twice the error of the clocks and the time of a restart.
    #[default]
    Brief,
    /// The same, and every node rehearses the release before it votes or takes its turn.
    Rehearsed,
}

/// What vouches for the facts of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Facts {
    /// A checksum: whoever can write to the directory is believed.
    #[default]
    Summed,
    /// The signature of the node's own key, which an operator has listed.
    Signed,
}

/// What becomes of the nodes that have the new release when a rolling rollout is halted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnHalt {
    #[default]
    Stop,
    /// They go back, as many at once as went forward.
    Rollback,
}

/// What a node does that has promised to wait for an outcome which it cannot read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolated {
    /// Stay on the new release, keep the way back, and say so.
    #[default]
    Hold,
    /// Go back after `isolated_after`: the fleet may then end on two releases.
    Rollback,
}

/// Whether a node whose clock cannot be measured takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkewCheck {
    /// Only if the kernel says that its clock is synchronised.
    #[default]
    Checked,
    Unchecked,
}

/// A part of the fleet that a rolling rollout reaches before the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveSetting {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// So many of a hundred, rounded up, counted from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// The `[fleet]` table. Times that all nodes must hold to are frozen in the proposal, from its author's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub mode: Mode,
    /// The fleet's name; must be the one that the directory was made for.
    pub name: String,
    /// The directory on shared storage, or `exec:PROGRAM ARGUMENT..` for another kind of board.
    pub directory: String,
    /// This node's name; empty: the host name.
    pub node: String,
    /// Groups that this node asks to be in.
    pub groups: Vec<String>,
    /// The cell that this node is in, where the list of members names no other: its nodes switch together.
    pub cell: Option<CellName>,
    /// Files of keys that may sign proposals, lists and waivers (namespace `cutover-fleet`).
    pub keys: Vec<String>,
    /// The private key that `propose`, `members` and `waive` sign with; absent: the agent, or none.
    pub signing_key: Option<String>,
    /// Whether unsigned proposals are obeyed.
    pub allow_unsigned: bool,
    /// What vouches for the facts of nodes; `signed`: rollouts in which they do not sign are refused.
    pub facts: Facts,
    /// Whether old and new may serve at the same time.
    pub overlap: Overlap,
    /// What a node does that cannot read the outcome.
    pub isolated: Isolated,
    /// How long it waits before, with `isolated = "rollback"`.
    pub isolated_after: Span,
    /// How often storage is asked while a rollout is open.
    pub poll: Span,
    /// How long a new fact may stay hidden from another node; `fleet check` measures it.
    pub visibility: Span,
    /// How long nodes may take to stage and vote.
    pub vote: Span,
    /// From the decision to switch to the switch itself.
    pub lead: Span,
    /// How late a node may still switch; zero: not at all.
    pub late: Span,
    /// How long stopping and starting the services may take on any node, beyond `late`.
    pub stop: Span,
    /// How long the new release is watched.
    pub trial: Span,
    /// How long the reports may take after that.
    pub settle: Span,
    /// From the decision to go back to going back.
    pub back: Span,
    /// How long each further node waits before it decides what another one could have.
    pub decider_step: Span,
    /// How far a node's clock may be off the storage's.
    pub skew: Span,
    /// Whether a clock that cannot be measured is trusted.
    pub skew_check: SkewCheck,
    /// Time limit of one access to storage.
    pub io: Span,
    /// Rolling: how many nodes may be out of service at once; cells: how many cells.
    pub at_once: u32,
    /// Rolling: which part goes first.
    pub waves: Vec<WaveSetting>,
    /// Rolling: how long after a wave the next one waits.
    pub soak: Span,
    /// Rolling: so many failures halt it.
    pub max_failed: u32,
    /// Rolling: what becomes then of the nodes that have the new release.
    pub on_halt: OnHalt,
}

impl Mode {
    /// Whether a few take turns, by tickets: nodes or cells.
    pub fn takes_turns(self) -> bool {
        matches!(self, Self::Rolling | Self::Cells)
    }

    /// Whether nodes switch at one instant: all of them, or those of a cell.
    pub fn agrees_on_an_instant(self) -> bool {
        matches!(self, Self::Synchronous | Self::Cells)
    }

    /// In a word, as in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Rolling => "rolling",
            Self::Synchronous => "synchronous",
            Self::Cells => "cells",
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            name: String::new(),
            directory: String::new(),
            node: String::new(),
            groups: Vec::new(),
            cell: None,
            keys: Vec::new(),
            signing_key: None,
            allow_unsigned: false,
            facts: Facts::default(),
            overlap: Overlap::default(),
            isolated: Isolated::default(),
            isolated_after: Span::seconds(3600),
            poll: Span::seconds(1),
            visibility: Span::seconds(2),
            vote: Span::seconds(3600),
            lead: Span::seconds(15),
            late: Span::seconds(10),
            stop: Span::seconds(0),
            trial: Span::seconds(60),
            settle: Span::seconds(10),
            back: Span::seconds(5),
            decider_step: Span::seconds(3),
            skew: Span(std::time::Duration::from_millis(250)),
            skew_check: SkewCheck::default(),
            io: Span::seconds(5),
            at_once: 1,
            waves: Vec::new(),
            soak: Span::seconds(600),
            max_failed: 1,
            on_halt: OnHalt::default(),
        }
    }
}
