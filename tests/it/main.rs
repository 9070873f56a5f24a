//! Tests of the whole: real files, real processes, the real binary.
#![allow(missing_docs, reason = "tests are documented by their names")]
mod layers;
