//! An update from its first phase to its last: all moves in one pure function, carried out by one loop.
//!
//! ```text
//! machine      which phase follows which event: pure
//! driver       the loop: reads the journal, does the work of the phase, records the next
//! forward      clearance, switch, trial          back     the way back
//! rehearsing   before the switch                 rehearsal  how a release runs beside the old one
//! boot         what comes before services start  enter    the ways into the loop
//! node         one application on one node       way_back where a rollback leads
//! deadline     how long each phase may take
//! finish       what is remembered at the end     outcome  how it ended, and whose fault it was: pure
//! ```

pub mod adopting;
pub mod advice;
pub mod agreement;
mod answering;
pub mod application;
mod back;
mod boot;
pub mod copies;
pub mod data;
pub mod deadline;
pub mod driver;
mod enter;
pub mod finish;
pub mod fleet;
mod forward;
mod hearing;
pub mod hooks;
mod indexed;
mod links;
pub mod local;
pub mod machine;
pub mod metrics;
pub mod node;
pub mod offer;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod pruning;
pub mod rehearsal;
mod rehearsing;
pub mod requests;
pub mod running;
pub mod service;
pub mod settings;
mod shipped;
pub mod staging;
pub mod status;
#[cfg(test)]
mod tests;
pub mod touched;
pub mod units;
pub mod upstream;
pub mod view;
pub mod way_back;
