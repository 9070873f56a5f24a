//! A release as it is published: manifest, archive, index, signatures; and how a tree is made of it.

pub mod channel;
pub mod manifest;
pub mod source;
pub mod text;
pub mod trust;
