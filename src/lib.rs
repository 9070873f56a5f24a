//! Brings a node from one release of an application to the next, and back when the next one is sick.
//!
//! ```text
//! cli → config → lifecycle → { coord, store, release, health } → sys → types
//! ```
//! Imports run to the right only. `lifecycle::update::machine` holds all moves of an update, `lifecycle::update::driver` carries
//! them out, and every durable change passes `sys::disk`, where tests can stop it.

pub mod cli;
pub mod config;
pub mod coord;
pub mod health;
pub mod lifecycle;
pub mod release;
pub mod store;
pub mod sys;
pub mod types;
