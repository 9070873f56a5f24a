//! How a fleet agrees, through files that are written once on shared storage.
//!
//! ```text
//! rules     pure functions: own stage + what was read + time -> the next step
//! facts     what is written: one JSON line and a trailer
//! voice     with whose signature, where nodes sign
//! heard     what one look brought: an answer or none, remarks, waivers
//! standing  how a rollout ended, for whoever has no part in it
//! account   what a rollout did, for people
//! lists     who is in the fleet
//! pages     lists of members that do not fit into one fact
//! board     where it is written: create once, read, list; behind a helper that can be killed
//! ```
//! The process that switches and rolls back never touches shared storage itself.

pub mod account;
pub mod alive;
pub mod board;
pub mod check;
pub mod collect;
pub mod facts;
pub mod heard;
mod intervene;
pub mod lists;
pub mod look;
pub mod name;
pub mod operate;
pub mod pages;
pub mod rolling;
pub mod rollout;
pub mod rules;
pub mod settings;
pub mod standing;
pub mod synchronous;
mod turns;
pub mod voice;

pub use name::NodeName;
pub use settings::Settings;
