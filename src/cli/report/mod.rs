//! Pages to look at: a node's past, and a fleet's rollouts. Pure functions from facts to one self-contained file; the
//! command gathers the facts and writes the file.

pub mod facts;
pub mod fleet;
pub mod node;
mod page;
#[cfg(test)]
mod samples;

use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

pub use page::Tone;

use super::context::Context;
use super::failure::Error;
use super::output::{Output, print};
use crate::cli::words::args::{Global, ReportArgs};
use crate::coord::board::directory::DirectoryBoard;
use crate::store::{Kept, Pointer, read_history};
use crate::sys::disk::Disk;

pub fn report(
    args: &ReportArgs,
    global: &Global,
    disk: &Disk,
    load: &dyn Fn() -> Result<Context, Error>,
) -> Result<u8, Error> {
    let now = Timestamp::now();
    let html = match &args.fleet {
        Some(directory) => fleet::render(&fleet_facts(directory, args.rollouts, disk, now)?),
        None => node::render(&node_facts(&load()?, now)?),
    };
    if args.html == Path::new("-") {
        print(&html);
        return Ok(0);
    }
    disk.replace(&args.html, html.as_bytes(), 0o644)?;
    let told = format!("written to {}", args.html.display());
    Output::new(global).result(&json!({"html": args.html, "bytes": html.len()}), &told);
    Ok(0)
}

fn node_facts(context: &Context, now: Timestamp) -> Result<node::NodeReport, Error> {
    let store = context.store()?;
    let active = match store.pointer()? {
        Pointer::Release(version) => Some(version),
        Pointer::Absent | Pointer::Foreign(_) | Pointer::Strange(_) => None,
    };
    let state = match store.state()? {
        Kept::Whole(state) => state,
        Kept::Missing | Kept::Damaged(_) => crate::types::state::State::default(),
    };
    let history = read_history(&store.layout.history()).unwrap_or_default();
    let (app, node) = (context.app.clone(), context.node.clone());
    Ok(node::NodeReport { app, node, active, state, history, now })
}

/// The storage is read directly: when it hangs, so does this command, and nothing else.
fn fleet_facts(
    directory: &Path,
    rollouts: Option<usize>,
    disk: &Disk,
    now: Timestamp,
) -> Result<fleet::FleetReport, Error> {
    let mut board = DirectoryBoard::new(directory.to_owned(), "report", disk.clone());
    facts::gather(&mut board, rollouts, now).map_err(|why| Error::Usage {
        what: format!("`{}` is not a fleet's directory that can be read: {why}", directory.display()),
        hint: Some("name the directory of `[fleet] directory`".into()),
    })
}
