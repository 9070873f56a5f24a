//! The machine: disk, clock, processes, systemd. Everything above asks these, and no other module changes anything.

pub mod access_list;
pub mod clock;
pub mod deep;
pub mod disk;
pub mod inode;
pub mod kernel;
pub mod lock;
pub mod mounts;
pub mod namespace;
pub mod open;
pub mod orphans;
pub mod owned;
pub mod place;
pub mod process;
mod remove;
pub mod sockets;
pub mod systemd;
pub mod tls;
pub mod unit;
pub mod wall;
