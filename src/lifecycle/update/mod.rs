//! One update from its first phase to its last.
//!
//! ```text
//! enter        the ways into the loop: switch, recover       boot   what comes before the services of a booting node
//! machine      which phase follows which event: pure
//! driver       the loop: reads the journal, does the work of its phase, records the next
//!
//! clearance    Staged        what must be so before anything stops
//! warming      Warming       the rehearsal: what the new release shows beside the old one
//! switch       Switching     stop, copy the data, move the pointer, start
//! trial        Trial         the new release is watched
//! rollback     RollingBack   the same way backwards          way_back   where a rollback by hand leads
//! finish       the others    what is remembered and cleared away
//!
//! operator     what people say meanwhile                     unanswered how long nobody got an answer
//! deadline     how long each phase may take                  outcome    how it ended, and whose fault it was: pure
//! ```

mod boot;
mod clearance;
pub mod deadline;
pub mod driver;
mod enter;
pub mod finish;
pub mod machine;
mod operator;
pub mod outcome;
mod rollback;
mod switch;
#[cfg(test)]
mod tests;
mod trial;
mod unanswered;
pub(super) mod warming;
pub mod way_back;
