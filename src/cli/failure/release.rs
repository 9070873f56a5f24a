//! What an operator reads when a release cannot be had, or cannot be made: sources, archives, signatures, publishing.

use super::{Failure, code, of_disk, of_node, of_store};
use crate::lifecycle::{staging, staging::upstream};
use crate::release::judge::Refused;
use crate::release::trust::{Refusal, SignError};
use crate::release::{archive, exclusive, index, pack, publish, resolve, source, stage};
use crate::sys::disk;

/// For an archive that cannot be read just now.
const READ_AGAIN: &str = "see that the source can be reached, and the disk is well; then run it again";

pub(super) fn of_staging(error: &staging::Error) -> Failure {
    use staging::Error as E;
    match error {
        E::Link { .. } => {
            let hint = "mend `[links]`, or take out of the release what is in the way; nothing was switched";
            Failure::new(code::USAGE, error, Some(hint))
        }
        E::Store(error) => of_store(error, code::FAILED),
        E::Stage(stage::Error::Archive(error)) | E::Archive(error) => match error {
            archive::Error::Refused(refusal) => {
                Failure::new(code::REFUSED, error, Some(refusal.rule.remedy()))
            }
            archive::Error::Read { .. } => Failure::new(code::FAILED, error, Some(READ_AGAIN)),
        },
        E::Stage(stage::Error::Disk(error)) | E::Disk(error) => of_disk(error, code::FAILED),
        E::Index(error) => of_index(error),
        E::Source(error) => of_source(error),
        E::Mismatch { .. } => {
            Failure::new(code::REFUSED, error, Some("ask who published it for the right files"))
        }
    }
}

pub(super) fn of_index(error: &index::Error) -> Failure {
    use index::Error as E;
    match error {
        E::Malformed { .. } | E::Digest { .. } | E::Differs { .. } | E::Entry { .. } => {
            Failure::new(code::REFUSED, error, Some("ask who published it for the right files"))
        }
        E::Read(_) => Failure::new(code::FAILED, error, Some(READ_AGAIN)),
        E::Source(error) => of_source(error),
        E::Disk(error) => of_disk(error, code::FAILED),
    }
}

pub(super) fn of_source(error: &source::Error) -> Failure {
    if error.is_no_space() {
        return Failure::new(
            code::NO_SPACE,
            error,
            Some("make room; `cutover status` says how much `cutover prune` would free"),
        );
    }
    if error.is_refusal() {
        return Failure::new(code::REFUSED, error, Some("ask who published it for the right files"));
    }
    if matches!(error, source::Error::Overtaken(_)) {
        return Failure::new(code::FAILED, error, Some("publish again: it goes on from what is there now"));
    }
    if matches!(error, source::Error::Exists(_)) {
        return Failure::new(code::REFUSED, error, Some("publish it under a new version"));
    }
    if matches!(error, source::Error::Occupied { .. }) {
        return Failure::new(
            code::REFUSED,
            error,
            Some(
                "bring it to another place, or pack it under another version; what is there was not touched",
            ),
        );
    }
    if let source::Error::Put { status, .. } = error {
        return Failure::new(code::FAILED, error, Some(of_put(*status)));
    }
    if matches!(error, source::Error::NotKept(_)) {
        let hint = "see that the address is one for uploads, and who else writes there; then publish again";
        return Failure::new(code::FAILED, error, Some(hint));
    }
    if let source::Error::Private { .. } = error {
        let hint = "name another directory with `TMPDIR`: it needs room for the archive";
        return Failure::new(code::FAILED, error, Some(hint));
    }
    if matches!(error, source::Error::NoSource) {
        return Failure::new(code::USAGE, error, Some("set it in the configuration, or name an archive"));
    }
    let hint = match error.remedy() {
        source::Remedy::Way => "see that the source can be reached; the next run asks it again",
        source::Remedy::Place => {
            "see what was published there: `url` and `channel` in `[source]` say where it is looked for"
        }
        source::Remedy::Login => {
            "see who may read there: `credentials` in `[source]` names the file that says who asks"
        }
        source::Remedy::Credentials => "mend the file that `credentials` in `[source]` names",
        source::Remedy::Address => {
            "look at `url` in `[source]`, and where the server there sends those who ask"
        }
    };
    Failure::new(code::FAILED, error, Some(hint))
}

/// What helps where a server did not take a file.
fn of_put(status: u16) -> &'static str {
    match status {
        401 | 403 | 407 => "see who may write there: `--credentials` names the file that says who asks",
        404 | 405 | 501 => "see that the server takes files by `PUT` at this address",
        409 => "make that directory on the server (WebDAV: `MKCOL`), then publish again",
        411 | 413 => "let the server take files of that size, then publish again",
        507 => "make room on the server, then publish again",
        _ => "see that the server is well, then publish again: it goes on from what is there",
    }
}

/// A place that the command line names: no `[source]` has to do with it.
pub(super) fn of_place(error: &resolve::Error) -> Failure {
    use source::{Error as E, Remedy};
    let resolve::Error::Source(source) = error else { return of_resolve(error) };
    match source {
        E::Disk(error) => return of_files(error),
        E::Missing(_) | E::Read { .. } | E::Status { .. } | E::Cut(_) => {}
        E::Address { .. } | E::Scheme(_) | E::NotAbsolute(_) | E::Owned(_) => {}
        _ => return of_source(source),
    }
    let hint = match source.remedy() {
        Remedy::Way => "see that the place can be reached, then run it again: it goes on from what is there",
        Remedy::Place => "see what is there, and that the address and `--channel` are right",
        Remedy::Login => {
            "see who may read there: `--credentials` (of FROM: `--from-credentials`) names the file that says who asks; a \
             bucket also refuses so what is not there, to keys that may not list it (`s3:ListBucket`)"
        }
        Remedy::Credentials => "mend the file that `--credentials` or `--from-credentials` names",
        Remedy::Address => "look at the address, and where the server there sends those who ask",
    };
    Failure::new(code::FAILED, error, Some(hint))
}

pub(super) fn of_upstream(error: &upstream::Error) -> Failure {
    use upstream::Error as E;
    match error {
        E::Resolve(error) => of_resolve(error),
        E::Source(error) => of_source(error),
        E::Trust(_) => Failure::new(code::USAGE, error, Some("look at the files of trusted keys")),
        E::Node(error) => of_node(error),
        E::Staging(error) => of_staging(error),
    }
}

fn of_resolve(error: &resolve::Error) -> Failure {
    use resolve::Error as E;
    match error {
        E::Refused(refused) => {
            let hint = match refused {
                // Whoever changed a channel wants just this: to be taken without a signature.
                Refused::Untrusted { what, .. } if what.ends_with(".channel") => {
                    "nothing newer is taken, and what runs is untouched; look who wrote that file: where the publisher has another key now, trust it (`[source] keys`), else let `cutover publish` sign it anew"
                }
                Refused::Untrusted { refusal: Refusal::Unsigned | Refusal::NoKeys(_), .. } => {
                    "sign it with a key of this node's (`cutover sign`), or take an archive as it is with `--allow-unsigned`"
                }
                Refused::Untrusted { .. } => {
                    "look who made it; whoever publishes signs it with a key of this node's (`cutover sign`)"
                }
                Refused::Older { .. } | Refused::TwoOfOneSerial { .. } => {
                    "if the source was restored from a backup: `cutover trust forget-channel NAME`; else look who wrote to it"
                }
                Refused::Expired { .. } | Refused::FromTheFuture { .. } => {
                    "compare the clock (`date -u`); if it is right, whoever publishes runs `cutover publish` again"
                }
                Refused::OtherProduct { .. } => {
                    "name the right release; if this node is to run another product from now on, set `product` in `[source]`"
                }
                Refused::Page(_) => {
                    "look at that address: a login, a proxy or a portal gives this instead of the file"
                }
                Refused::Incompatible { .. } => "what this node is stands in `[source] compatible`",
                _ => "ask who published it; the running release is untouched",
            };
            Failure::new(code::REFUSED, error, Some(hint))
        }
        E::Source(error) => of_source(error),
        E::Disk(error) => of_disk(error, code::FAILED),
        E::NoVersion(_) => Failure::new(code::USAGE, error, Some("say it with `--version VERSION`")),
    }
}

pub(super) fn of_pack(error: &pack::Error) -> Failure {
    use pack::Error as E;
    let told = |hint: &str| Failure::new(code::FAILED, error, Some(hint));
    match error {
        E::Index(error @ index::Error::Entry { .. }) => {
            Failure::new(code::REFUSED, error, Some("mend that in the directory, then pack it again"))
        }
        E::Index(index::Error::Disk(error)) | E::Disk(error) => of_packed(error),
        E::Index(error) => of_index(error),
        E::Changed(_) => told("pack a directory that nobody writes to meanwhile"),
        E::Empty(_) => Failure::new(code::USAGE, error, Some("name the directory that holds the release")),
        E::Published(_) => {
            let hint = "a version is published once: pack it under a new version, or to another directory";
            Failure::new(code::USAGE, error, Some(hint))
        }
        E::Lock(exclusive::Error::Taken(_)) => {
            Failure::new(code::BUSY, error, Some("wait for it, or pack to another file"))
        }
        E::Lock(exclusive::Error::Disk(error)) => of_packed(error),
        E::BaseWithoutIndex(_) => told("name an archive that `cutover pack` made, or leave `--base` out"),
        E::TooLarge => told("split it into several applications"),
        E::Compress(_) => told("look at memory and disk, then run it again"),
    }
}

/// The machine, where there is no root and no node.
fn of_packed(error: &disk::Error) -> Failure {
    let hint = match error.source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "pack as a user who may read all of it, and write the archive"
        }
        std::io::ErrorKind::NotFound => {
            "check the path; nobody may write to the directory while it is packed"
        }
        std::io::ErrorKind::NotADirectory => "name the directory that holds the release",
        // Nobody but who reads the file says so.
        _ if error.source.raw_os_error().is_none() => "pack a directory that nobody writes to meanwhile",
        _ => return of_files(error),
    };
    Failure::new(code::FAILED, error, Some(hint))
}

/// The files of whoever publishes: there is no root, and nothing to recover.
fn of_files(error: &disk::Error) -> Failure {
    if error.is_no_space() {
        return Failure::new(code::NO_SPACE, error, Some("make room, then run the same command again"));
    }
    let hint = match error.source.kind() {
        std::io::ErrorKind::ReadOnlyFilesystem => "name a directory that can be written to",
        std::io::ErrorKind::PermissionDenied => "run it as a user who may write there, or read that file",
        _ => return of_disk(error, code::FAILED),
    };
    Failure::new(code::FAILED, error, Some(hint))
}

pub(super) fn of_sign(error: &SignError) -> Failure {
    let told = |code, hint: &str| Failure::new(code, error, Some(hint));
    match error {
        SignError::Disk(error) => of_files(error),
        SignError::NoKey(_) => told(code::USAGE, "`cutover keygen NAME` makes a key"),
        SignError::NoFile(_) => told(code::USAGE, "name a manifest or a channel"),
        SignError::Key { .. } => {
            told(code::FAILED, "name a private ed25519 key of `ssh-keygen` that you may read")
        }
        SignError::Random => told(code::FAILED, "run it on a machine that has `getrandom`"),
        SignError::Run { .. } => told(code::FAILED, "install `ssh-keygen` (Debian: openssh-client)"),
        SignError::Refused(_) => told(code::FAILED, "`ssh-add -l` shows the keys that the agent has"),
        SignError::KeyType { .. } => {
            told(code::USAGE, "`cutover keygen NAME` makes one that counts; nothing was signed")
        }
        SignError::Unsound { .. } => {
            told(code::FAILED, "see which key it is (`ssh-keygen -lf`); nothing was written")
        }
    }
}

pub(super) fn of_publish(error: &publish::Error) -> Failure {
    use publish::Error as E;
    let told = |code, hint: &str| Failure::new(code, error, Some(hint));
    match error {
        E::Disk(error) | E::Lock(exclusive::Error::Disk(error)) => of_files(error),
        E::Sign(error) => of_sign(error),
        E::WhichRelease { .. } => told(code::USAGE, "name it: `cutover publish DIR VERSION`"),
        E::NoRelease { .. } => told(code::USAGE, "`cutover pack` makes archive and manifest"),
        E::Revoked(_) => told(code::USAGE, "publish it under a new version"),
        E::Malformed { .. } | E::OtherArchive { .. } | E::OtherRelease(_) => {
            told(code::REFUSED, "make the manifest anew: `cutover pack`")
        }
        E::Changed { .. } => told(
            code::REFUSED,
            "look who wrote it: nothing was signed. Bring back what was published, or publish it under a new version",
        ),
        E::Stranger { .. } => told(
            code::REFUSED,
            "look who wrote it: nothing was signed. If it is right, `cutover sign --key KEY FILE` adds a signature",
        ),
        E::NotNamed(_) => told(code::USAGE, "name it: `cutover publish DIR VERSION`"),
        E::Lock(exclusive::Error::Taken(_)) | E::Overwritten(_) => {
            told(code::BUSY, "see that only one publishes at a time, then publish again")
        }
        E::BelowMinimum { .. } => told(code::USAGE, "publish a newer one, or name another `--minimum`"),
        E::Signature { .. } | E::OtherKey { .. } | E::OtherChannel { .. } | E::Unsigned(_) => told(
            code::REFUSED,
            "look who wrote it. If it is right, `cutover sign --key KEY FILE.channel` adds the signature of your key, and \
             all that it says stays; else bring back what was published, or begin anew with `--serial NUMBER`, higher than \
             any before",
        ),
        E::SameArchive { .. } => told(
            code::REFUSED,
            "give each release's archive a name of its own (`PRODUCT-VERSION.tar.zst`), and publish again",
        ),
        E::OtherProduct { .. } => told(
            code::REFUSED,
            "publish it to another directory or place, or into another channel (`--channel NAME`); nothing was written",
        ),
        E::OtherName { .. } => told(code::USAGE, "rename it, or name the directory and the version"),
        E::WouldLose { .. } => told(
            code::REFUSED,
            "`cutover sign --key KEY FILE.channel` keeps all that it says, and the next `publish` needs no `--serial`; or \
             say it again (`--revoke`, `--minimum`, …); if it is not true, remove that file",
        ),
        E::WouldBeRefused(Refused::Older { .. } | Refused::TwoOfOneSerial { .. }) => told(
            code::USAGE,
            "leave `--serial` out, or name a higher number; a channel that somebody else wrote: remove it first",
        ),
        E::WouldBeRefused(Refused::FastForward { .. }) => told(
            code::USAGE,
            "name a lower `--serial`; a channel that has such a number already, nobody has accepted: remove it first",
        ),
        E::WouldBeRefused(Refused::Expired { .. }) => told(
            code::USAGE,
            "compare the clock (`date -u`) with the channel that is there; nothing was written",
        ),
        E::WouldBeRefused(_) => told(code::USAGE, "change what is named, then publish again"),
    }
}
