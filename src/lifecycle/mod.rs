//! An update from its first phase to its last: all moves in one pure function, carried out by one loop.
//!
//! ```text
//! settings      what an admin may set
//! update        one update: moves, loop, the way there and back, trial, outcome, deadline
//! node          what may be asked of one node: its locks, and the ways into an update
//! staging       from an archive at its source to a sealed tree
//! application   services, unit files, hooks and data: behind a seam, and on a real node
//! rehearsal     the new release beside the old one, before anything is switched
//! agreement     what others must agree to: a seam; behind it `fleet`
//! policy        what keeps a node from switching now
//! report        what is told of a node: status, advice, metrics
//! ```
//!
//! Begin with [`update::machine`], which holds the whole product in one function, and [`update::driver`], the loop.

pub mod agreement;
pub mod application;
pub mod fleet;
pub mod node;
pub mod policy;
pub mod rehearsal;
pub mod report;
pub mod settings;
pub mod staging;
pub mod update;
