//! The command line. This layer alone prints and exits.

pub mod report;
