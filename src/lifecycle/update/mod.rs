//! One update from its first phase to its last.
//!
//! ```text
//! machine      which phase follows which event: pure
//! driver       the loop: reads the journal, does the work of the phase, records the next
//! forward      clearance, switch, trial          back      the way back
//! way_back     where a rollback by hand leads
//! enter        the ways into the loop            boot      what comes before services start
//! rehearsing   what is shown beside, before the switch
//! hearing      what people say meanwhile         answering how long nobody got an answer
//! deadline     how long each phase may take
//! finish       what is remembered at the end     outcome   how it ended, and whose fault it was: pure
//! ```

mod answering;
mod back;
mod boot;
pub mod deadline;
pub mod driver;
mod enter;
pub mod finish;
mod forward;
mod hearing;
pub mod machine;
pub mod outcome;
pub(super) mod rehearsing;
#[cfg(test)]
mod tests;
pub mod way_back;
