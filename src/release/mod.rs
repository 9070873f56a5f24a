//! A release as it is published: manifest, archive, index, signatures; and how a tree is made of it.

pub mod archive;
pub mod channel;
pub mod check;
pub mod copy;
pub mod exclusive;
pub mod index;
pub mod judge;
pub mod manifest;
pub mod pack;
pub mod publish;
pub mod resolve;
pub mod scan;
pub mod source;
pub mod stage;
pub mod text;
pub mod tree;
pub mod trust;
