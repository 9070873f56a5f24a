//! Pages to look at: a node's past, and a fleet's rollouts. Pure functions from facts to one self-contained file.

pub mod facts;
pub mod fleet;
pub mod node;
mod page;

pub use page::Tone;
