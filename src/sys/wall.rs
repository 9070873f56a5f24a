//! A wall around work on bytes that nobody vouches for: a thread that gives up what it doesn't need.
//!
//! The thread restricts itself by Landlock before it begins: files beneath one directory, or none at all, and no TCP.
//! Should a decompressor or a reader ever be tricked, it can then write where it was to write anyway. Descriptors that
//! are open already stay usable. The restriction ends with the thread, and its threads share it.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::thread;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

/// Does the work behind the wall, where the kernel has one: see [`is_there`].
///
/// `directory` is what may be read and written beneath; devices, fifos and sockets cannot be made even there.
pub fn behind<T: Send>(directory: Option<&(dyn AsFd + Sync)>, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let walled = scope.spawn(|| {
            enter(directory);
            work()
        });
        walled.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Puts the calling thread behind the wall for the rest of its life: see [`behind`].
pub fn enter(directory: Option<&(dyn AsFd + Sync)>) {
    if let Err(error) = restrict(directory) {
        tracing::debug!(%error, "no sandbox: this kernel has no Landlock, or an old one");
    }
}

/// Whether this kernel can build the wall.
pub fn is_there() -> bool {
    ruleset().and_then(Ruleset::create).is_ok()
}

fn ruleset() -> Result<Ruleset, RulesetError> {
    // Without the second version no file could be linked into another directory: then rather no wall.
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::AbstractUnixSocket)
}

fn restrict(directory: Option<&(dyn AsFd + Sync)>) -> Result<(), RulesetError> {
    let mut ruleset = ruleset()?.create()?;
    if let Some(directory) = directory {
        ruleset = ruleset.add_rule(PathBeneath::new(directory.as_fd(), access()))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}

/// What making a tree needs.
fn access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSym
        | AccessFs::Refer
}

/// Leaves the calling thread, and all that it starts, nothing but to read what is at or beneath these places. Others
/// are not there for it; TCP it may speak, to whom it calls.
///
/// # Errors
/// When the kernel has no wall.
pub fn leave_only(readable: impl Iterator<Item = OsString>) -> Result<(), RulesetError> {
    let access = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    ruleset.create()?.add_rules(path_beneath_rules(readable, access))?.restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn behind_the_wall_only_the_directory_can_be_changed() {
        if !is_there() {
            eprintln!("SKIPPED behind_the_wall_only_the_directory_can_be_changed: no Landlock");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let inside = place.path().join("inside");
        nix::unistd::mkdir(&inside, Mode::S_IRWXU).unwrap();
        nix::unistd::mkdir(&inside.join("deeper"), Mode::S_IRWXU).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        behind(Some(&File::open(&inside).unwrap()), || {
            File::create(inside.join("file")).unwrap();
            nix::unistd::linkat(
                nix::fcntl::AT_FDCWD,
                &inside.join("file"),
                nix::fcntl::AT_FDCWD,
                &inside.join("deeper/link"),
                nix::fcntl::AtFlags::empty(),
            )
            .unwrap();
            assert!(nix::unistd::mkfifo(&inside.join("fifo"), Mode::S_IRWXU).is_err());
            assert!(File::create(place.path().join("outside")).is_err());
            assert!(File::open("/etc/passwd").is_err());
            assert!(std::process::Command::new("/bin/true").status().is_err());
            if let Ok(stream) = TcpStream::connect(address) {
                eprintln!("the kernel's Landlock knows no network: {stream:?}");
            }
            std::thread::spawn(move || assert!(File::open("/etc/passwd").is_err())).join().unwrap();
        });
        behind(None, || assert!(File::create(inside.join("none")).is_err()));
        File::create(place.path().join("outside")).unwrap();
    }
}
