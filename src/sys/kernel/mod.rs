//! What Linux offers only as `ioctl` or bare system call. The one directory with `unsafe`.
//!
//! None of the changes here is durable when the call returns, but [`btrfs::snapshot`], which commits the transaction
//! first. Callers ask [`Disk::ask`] before a change.
//!
//! [`Disk::ask`]: super::disk::Disk::ask
#![expect(
    unsafe_code,
    reason = "these calls have no safe form; arguments are numbers, texts, and plain C structs"
)]

pub mod btrfs;
pub mod descriptor;
pub mod file;
pub mod filter;
pub mod thread;
pub mod time;
