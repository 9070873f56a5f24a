//! A source that is read by a process of its own, which has no rights.
//!
//! ```text
//! this process, root's               the child: nobody, no capabilities, no files, no other program
//!   control ── settings, once ──────►  opens the source (reads its credentials), then gives up all rights
//!           ── a socket a request ──►  a thread answers there, and ends when the socket is closed
//! ```
//! What speaks with the network, reads its answers and their certificates is the child. This process gets bytes of small
//! files and of parts of archives, all bounded, and believes none of them before signature and digest.

mod parent;
mod rights;
mod serve;
mod wire;

pub use parent::{COMMAND, open};
pub use serve::serve;
