//! Writing a tree beneath one directory, by descriptors only.
//!
//! Nothing here follows a symbolic link, leaves the root, or replaces what exists, whatever the names are and whoever
//! changes the tree meanwhile. A [`Root`] is shared between threads; each has a [`TreeWriter`] of its own, which keeps
//! the directory of the last entry open: entries mostly come in order.
//!
//! A tree is built in a directory that only its owner may enter; files have their final mode from the beginning, and
//! directories get theirs, and their times, at the end: [`TreeWriter::finish_directory`], deepest first.

mod flush;
mod root;
mod times;
mod writer;

pub use flush::flush_behind;
pub use root::{Root, empty};
pub use times::{Times, can_become};
pub use writer::{Meta, NewFile, TreeWriter};
