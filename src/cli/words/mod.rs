//! What may be typed. The help texts here are the reference: manual pages and completions are made of them.

pub mod args;
pub mod completion;
pub mod examples;
pub mod release_args;
pub mod schema;
pub mod signing_args;
