//! What is told of a node. Nothing here changes anything.

pub mod advice;
mod membership;
pub mod metrics;
pub mod offer;
pub mod running;
pub mod status;
pub mod view;
