//! How a fleet agrees, through files that are written once on shared storage.

pub mod name;
pub mod settings;

pub use name::NodeName;
pub use settings::Settings;
