//! POSIX access lists (ACLs), which directories hand on to what is made in them.
//!
//! A release carries none: they name users of one machine. So trees have none, whatever their parents have.

use std::fs::File;
use std::io;

use xattr::FileExt as _;

/// Who may do what with a file or directory, beyond owner, group and others.
const ACCESS: &str = "system.posix_acl_access";
/// What new entries of a directory get.
const DEFAULT: &str = "system.posix_acl_default";

/// Whether an extended attribute is an access list.
pub fn is_one(name: &[u8]) -> bool {
    name == ACCESS.as_bytes() || name == DEFAULT.as_bytes()
}

/// Takes the access lists off a file or directory. Its mode must be set again afterwards: the group's bits stood for the
/// list's mask.
///
/// # Errors
/// When the attributes cannot be listed or removed; a file system without access lists has none to remove.
pub fn remove(file: &File) -> io::Result<()> {
    let names = match file.list_xattr() {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names.filter(|name| is_one(name.as_encoded_bytes())) {
        file.remove_xattr(name)?;
    }
    Ok(())
}
