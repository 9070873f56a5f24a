//! An update from its first phase to its last: all moves in one pure function, carried out by one loop.

pub mod agreement;

pub mod policy;
pub mod service;
