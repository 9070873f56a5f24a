//! The words of `cutover fleet`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::coord::NodeName;
use crate::coord::name::CellName;
use crate::coord::rules::rolling::At;
use crate::types::{Digest, Span, Version};

/// What to do with a fleet.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum FleetCommand {
    /// Make a fleet in the configured directory
    Init,
    /// Make this node known to the fleet
    Join,
    /// Show who is in the fleet, or write the next list
    Members(MembersArgs),
    /// See whether the shared storage can do what a fleet needs
    ///
    /// Races for names, reads while they are made, and compares clocks: with NODES named, between these nodes, on all of
    /// which this command runs at the same time, with the same names; else between several processes of this node. Storage
    /// on which not exactly one is first is refused.
    Check(CheckArgs),
    /// Propose a release to all members
    ///
    /// Each member stages it and votes. With `mode = "synchronous"` all switch at one instant or none does, and all
    /// keep it or all go back; with `mode = "rolling"` a few at a time.
    Propose(ProposeArgs),
    /// Show how a rollout stands: who has voted, switched, is healthy, and who is waited for
    Status(FleetStatusArgs),
    /// Show what a rollout did: when each node stopped, switched, was healthy and went back
    Report(RolloutArgs),
    /// Stop a rollout: nobody switches any more, or all go back
    Abort(AbortArgs),
    /// End a rollout whatever stands there: for one that nothing else can end
    ///
    /// Nobody begins any more, and nothing of it counts as kept. `abort` does it by itself where a decision was damaged.
    Void(AbortArgs),
    /// Let a rollout go on without a member
    Waive(WaiveArgs),
    /// Free the name of a node for another machine, or for the same one with a new disk
    ///
    /// The machine that had it has no part in anything any more. The new one runs `cutover fleet join`, and is listed by
    /// `cutover fleet members --add`.
    Replace(ReplaceArgs),
    /// Let this node follow the fleet again after a rollback by hand
    Resume,
    /// Write the facts of a rollout to stdout, to be carried to a node that is cut off
    Export(RolloutArgs),
    /// Take over facts that `cutover fleet export` wrote elsewhere
    Import(ImportArgs),
    /// Remove the facts of rollouts that ended long ago
    Gc(GcArgs),
    /// Put back decisions that this node has read and the storage has lost
    Repair(RepairArgs),
}

#[derive(Debug, Args)]
pub struct MembersArgs {
    /// Write a list of all nodes that have joined
    #[arg(long, conflicts_with_all = ["add", "remove"])]
    pub all: bool,
    /// Write a list with this node, too (repeat the option)
    #[arg(long, value_name = "NODE")]
    pub add: Vec<NodeName>,
    /// Write a list without this node, and free its name (repeat the option)
    #[arg(long, value_name = "NODE")]
    pub remove: Vec<NodeName>,
    /// Write a list in which this node is in this cell, whatever it says itself (repeat the option)
    #[arg(long, value_name = "NODE=CELL", value_parser = node_and_cell)]
    pub cell: Vec<(NodeName, CellName)>,
}

fn node_and_cell(text: &str) -> Result<(NodeName, CellName), String> {
    let (node, cell) = text.split_once('=').ok_or("a node and its cell are meant, such as `web-1=ams-2`")?;
    let name = |text: &str| text.parse().map_err(|error: crate::coord::name::NotANodeName| error.to_string());
    Ok((name(node)?, name(cell)?))
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The nodes that check together
    #[arg(value_name = "NODE")]
    pub nodes: Vec<NodeName>,
    /// How many races to run; the same on all nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rounds: u32,
    /// How long to wait for the other nodes
    #[arg(long, value_name = "DURATION", default_value = "2min")]
    pub wait: Span,
}

#[derive(Debug, Args)]
pub struct ProposeArgs {
    /// The release: staged here, or offered by the source
    #[arg(value_name = "VERSION", required_unless_present = "rollback")]
    pub version: Option<Version>,
    /// The release before, that all members still have
    #[arg(long, conflicts_with_all = ["version", "digest"])]
    pub rollback: bool,
    /// Its digest, where this machine knows neither
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<Digest>,
    /// Wait for the outcome: exit 0 kept, 10 rolled back, 13 called off or second to another proposal, 17 in doubt
    #[arg(long)]
    pub wait: bool,
    /// Stop the rollout under way first
    #[arg(long)]
    pub supersede: bool,
    /// Only this member (repeat the option)
    #[arg(long, value_name = "NODE")]
    pub only: Vec<NodeName>,
    /// Nobody switches before this moment (RFC 3339, or a duration from now)
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
    /// For how long it may be taken up, from `--not-before` on where that is set
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    pub valid: Span,
}

// One rollout.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// Its number; absent: the newest
    #[arg(value_name = "ROLLOUT")]
    pub rollout: Option<u64>,
}

#[derive(Debug, Args)]
pub struct FleetStatusArgs {
    /// See there.
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// Show it again every second until it has ended
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// Say what is waited for, and what follows
    #[arg(long)]
    pub why: bool,
}

#[derive(Debug, Args)]
pub struct AbortArgs {
    /// See there.
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "an operator wants it")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct WaiveArgs {
    /// Without whom
    #[arg(value_name = "NODE", required_unless_present = "ticket")]
    pub node: Option<NodeName>,
    /// Without whoever holds this ticket of a rolling rollout, for one that was damaged: `3`, or `1.3` in slot 1
    #[arg(long, value_name = "NUMBER", conflicts_with = "node")]
    pub ticket: Option<At>,
    /// Of which rollout; absent: the newest that has not ended
    #[arg(value_name = "ROLLOUT")]
    pub rollout: Option<u64>,
    /// The same, where no node is named
    #[arg(long = "rollout", value_name = "ROLLOUT", conflicts_with = "rollout")]
    pub of_rollout: Option<u64>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// Whose name is freed
    #[arg(value_name = "NODE")]
    pub node: NodeName,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Take the storage as it is, where another rollout has taken the place of one that it lost
    #[arg(long)]
    pub accept: bool,
    /// Put back, or end, a rollout of which this node has not read the end: when all other nodes have run this without it
    #[arg(long)]
    pub reopen: bool,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What `cutover fleet export` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct GcArgs {
    /// Say what would go, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long ago a rollout must have been proposed
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    pub older: Span,
    /// How many of the newest stay all the same
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub keep: usize,
}

#[derive(Debug, Args)]
pub struct HelperArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Whose helper it is
    #[arg(value_name = "NODE")]
    pub node: String,
    /// The id of the fleet whose directory it must be
    #[arg(value_name = "FLEET")]
    pub fleet: Option<String>,
}
