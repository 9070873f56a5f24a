//! Removing what was unpacked.

use super::Root;
use crate::sys::deep::{self, Fixed};
use crate::sys::disk::{Disk, Error};

/// Removes all that is in a directory. No link is followed, and the depth of the tree costs neither stack nor
/// descriptors.
pub fn empty(root: &Root, disk: &Disk) -> Result<(), Error> {
    disk.ask("remove", root.path())?;
    deep::empty(root, Fixed::Stays)
        .map_err(|failure| Error::new("remove", &root.path().join(failure.path), failure.source))
}
