//! `keygen`, `sign`, `verify-signature`, `publish` and `trust`.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::context::Context;
use super::copying::{Target, told};
use super::failure::Error;
use super::info::moment;
use super::output::Output;
use crate::cli::words::args::Global;
use crate::cli::words::signing_args::{
    KeygenArgs, PublishArgs, Role, SignArgs, TrustCommand, VerifySignatureArgs,
};
use crate::lifecycle::staging::upstream;
use crate::release::channel::{CHANNEL_BYTES_MAX, next_name};
use crate::release::judge::{self, Refused};
use crate::release::publish::{self, PublishOrder};
use crate::release::resolve;
use crate::release::source::{self, Directory, Item, Ranges, Source};
use crate::release::trust::{
    KeyPair, Keyring, Namespace, SIGNATURES_BYTES_MAX, SignError, TrustedKey, sign_file, signature_file,
};
use crate::sys::disk::{self, Disk};
use crate::types::{Version, escaped_path};

fn usage(what: impl Into<String>, hint: &str) -> Error {
    Error::Usage { what: what.into(), hint: Some(hint.to_owned()) }
}

pub fn keygen(global: &Global, args: &KeygenArgs, disk: &Disk) -> Result<u8, Error> {
    let mut public_file = args.file.as_os_str().to_owned();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    for path in [&args.file, &public_file] {
        if path.symlink_metadata().is_ok() {
            let what = format!("`{}` is there already", escaped_path(path));
            return Err(usage(what, "keys are never overwritten; choose another name"));
        }
    }
    let name = args.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let comment = args.comment.clone().unwrap_or(name);
    if comment.chars().any(char::is_control) {
        return Err(usage("the comment has control characters", "choose another one"));
    }
    let pair = KeyPair::generate(&comment)?;
    disk.replace(&args.file, pair.private.as_bytes(), 0o600)?;
    disk.replace(&public_file, pair.public.as_bytes(), 0o644)?;
    let public = pair.public.trim();
    let value = json!({"private": args.file, "public": public_file, "key": public});
    let text = format!(
        "private key  {} (not encrypted; `ssh-keygen -p -f` sets a passphrase)\npublic key   {}\n\
        to trust it on a node: /etc/cutover/keys/{}.pub with this line\n{public}",
        escaped_path(&args.file),
        escaped_path(&public_file),
        comment.replace(['/', ' '], "-"),
    );
    Output::new(global).result(&value, &text);
    Ok(0)
}

pub fn sign(global: &Global, args: &SignArgs, disk: &Disk) -> Result<u8, Error> {
    let mut written = Vec::new();
    for file in &args.files {
        written.push(sign_file(disk, file, &args.key, namespace(file, args.role)?)?);
    }
    let lines: Vec<_> = written.iter().map(|path| format!("signature {}", escaped_path(path))).collect();
    Output::new(global).result(&json!({ "signatures": written }), &lines.join("\n"));
    Ok(0)
}

/// What a file is signed as: what is said, or what its name says.
fn namespace(file: &Path, role: Option<Role>) -> Result<Namespace, Error> {
    let by_name = || match file.extension().and_then(|end| end.to_str()) {
        Some("manifest") => Some(Namespace::Release),
        Some("channel") => Some(Namespace::Channel),
        _ => None,
    };
    role.map(Namespace::from).or_else(by_name).ok_or_else(|| {
        let what = format!("`{}` is neither a manifest nor a channel by its name", escaped_path(file));
        usage(what, "sign the manifest of an archive, not the archive; or say what it is with `--as`")
    })
}

pub fn verify_signature(global: &Global, args: &VerifySignatureArgs) -> Result<u8, Error> {
    let namespace = namespace(&args.file, args.role)?;
    let keyring = Keyring::load(&args.keys, &args.revoked).map_err(upstream::Error::Trust)?;
    let missing = || usage(format!("there is no file `{}`", escaped_path(&args.file)), "name another one");
    let bytes = disk::read_small(&args.file, CHANNEL_BYTES_MAX)?.ok_or_else(missing)?;
    let signatures = disk::read_small(&signature_file(&args.file), SIGNATURES_BYTES_MAX)?;
    let signers = keyring
        .verify(namespace, &bytes, signatures.as_deref(), Timestamp::now(), args.threshold)
        .map_err(|refusal| {
            let refused = Refused::Untrusted { what: escaped_path(&args.file), refusal };
            upstream::Error::Resolve(resolve::Error::Refused(refused))
        })?;
    let found: Vec<_> =
        signers.iter().map(|signer| json!({"key": signer.fingerprint, "name": signer.name})).collect();
    let lines: Vec<_> = signers
        .iter()
        .map(|signer| format!("signed for {} by {} {}", namespace.as_str(), signer.fingerprint, signer.name))
        .collect();
    Output::new(global)
        .result(&json!({"namespace": namespace.as_str(), "signers": found}), &lines.join("\n"));
    Ok(0)
}

pub fn publish(global: &Global, args: &PublishArgs, disk: &Disk) -> Result<u8, Error> {
    let now = Timestamp::now();
    let (directory, product, version) = place(args)?;
    let shadow = args.dry_run.then(|| Shadow::of(&directory, &args.channel, disk)).transpose()?;
    let into = shadow.as_ref().map_or(&directory, |shadow| &shadow.path).clone();
    let order = PublishOrder {
        directory,
        into,
        is_elsewhere: args.to.is_some(),
        channel: args.channel.clone(),
        product,
        version,
        release_key: args.key.clone(),
        channel_key: args.channel_key.clone().or_else(|| args.key.clone()),
        expires_in: SignedDuration::try_from(args.expires.0).unwrap_or(SignedDuration::MAX),
        minimum: args.minimum.clone(),
        revoked: args.revoke.clone(),
        percent: args.percent,
        waves: waves(&args.wave, now)?,
        serial: args.serial,
        now,
    };
    let target = args.to.as_deref().map(|to| Target::open(to, args.credentials.as_deref(), &args.channel));
    let target = target.transpose()?;
    let before = target.as_ref().map(|target| target.take_channel(&order, disk)).transpose()?;
    let mut published = publish::publish(&order, disk)?;
    if args.dry_run {
        for path in published.written.iter_mut().chain([&mut published.path]) {
            *path = order.directory.join(path.file_name().unwrap_or_default());
        }
    }
    let output = Output::new(global);
    let channel = &published.channel;
    for note in &published.notes {
        output.say(&format!("note: {note}"));
    }
    if order.channel_key.is_none() {
        output.say("warning: the channel is not signed; only nodes with `allow_unsigned` take it");
    }
    let mut value = json!({
        "channel": channel.channel, "file": published.path, "serial": channel.serial, "version": channel.release.version,
        "digest": channel.release.digest, "issued": channel.issued, "expires": channel.expires,
        "written": published.written, "notes": published.notes, "dry_run": args.dry_run,
    });
    let mut text = format!(
        "channel {} of {}{}: release {}, serial {}, until {}\n  {}",
        channel.channel,
        channel.product,
        if args.dry_run { " would be" } else { "" },
        channel.release.version,
        channel.serial,
        channel.expires,
        published.written.iter().map(|path| escaped_path(path)).collect::<Vec<_>>().join("\n  "),
    );
    if let (Some(target), Some(before), Some(to)) = (target, before, &args.to) {
        let from: Box<dyn Source> = match &shadow {
            Some(shadow) => Box::new(shadow.over(&order.directory)),
            None => Box::new(Directory::new(&order.directory)),
        };
        let copied = target.publish(global, from.as_ref(), before, args.dry_run)?;
        let (brought, line) = told(&copied, to, args.dry_run);
        value["brought"] = brought;
        text = format!("{text}\n{line}");
    }
    output.result(&value, &text);
    Ok(0)
}

/// `TIME=PERCENT`, each.
fn waves(args: &[String], now: Timestamp) -> Result<Vec<(Timestamp, u8)>, Error> {
    let mut waves = Vec::new();
    for wave in args {
        let wrong = || {
            usage(format!("`{wave}` is no wave"), "write `--wave 2026-01-31T12:00:00Z=50`, or `--wave 2d=50`")
        };
        let (time, percent) = wave.rsplit_once('=').ok_or_else(wrong)?;
        let percent = percent.parse().ok().filter(|percent| *percent <= 100).ok_or_else(wrong)?;
        let from = Timestamp::from_second(moment(time, now, true)?.as_second()).map_err(|_| wrong())?;
        waves.push((from, percent));
    }
    Ok(waves)
}

/// A directory in which a dry run writes in place of the one that is published from. It goes with this value.
struct Shadow<'a> {
    path: PathBuf,
    disk: &'a Disk,
}

impl<'a> Shadow<'a> {
    /// One with the channel that is there.
    fn of(directory: &Path, channel: &str, disk: &'a Disk) -> Result<Self, Error> {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return Err(SignError::Random.into());
        }
        // Nobody can have made one of this name before.
        let name = format!("cutover-publish-{:032x}", u128::from_le_bytes(random));
        let path = std::env::temp_dir().join(name);
        disk.make_directory(&path, 0o700)?;
        let shadow = Self { path, disk };
        let now = PathBuf::from(format!("{channel}.channel"));
        let next = PathBuf::from(next_name(&format!("{channel}.channel")));
        for name in [signature_file(&now), signature_file(&next), now, next] {
            if let Some(bytes) = disk::read_small(&directory.join(&name), CHANNEL_BYTES_MAX)? {
                disk.replace(&shadow.path.join(&name), &bytes, 0o600)?;
            }
        }
        Ok(shadow)
    }

    /// The directory as it would be.
    fn over(&self, directory: &Path) -> Over {
        Over { written: Directory::new(&self.path), there: Directory::new(directory) }
    }
}

impl Drop for Shadow<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove_tree(&self.path) {
            tracing::warn!(%error, "what a dry run wrote stays behind");
        }
    }
}

/// Files of a directory, and those that would be written into it.
struct Over {
    written: Directory,
    there: Directory,
}

impl Source for Over {
    fn place(&self) -> String {
        self.there.place()
    }

    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, source::Error> {
        Ok(self.written.small(item, limit)?.or(self.there.small(item, limit)?))
    }

    fn archive(&self, item: Item<'_>, size: u64) -> Result<Box<dyn Ranges>, source::Error> {
        self.there.archive(item, size)
    }
}

/// The directory, and product and version: as the command line has them, or as a manifest that is named says.
fn place(args: &PublishArgs) -> Result<(PathBuf, Option<String>, Option<Version>), Error> {
    if args.place.is_dir() {
        return Ok((args.place.clone(), args.product.clone(), args.version.clone()));
    }
    if args.version.is_some() && !args.place.exists() {
        return Err(usage(
            format!("there is no directory `{}`", escaped_path(&args.place)),
            "name the one that `cutover pack` has written to",
        ));
    }
    if args.version.is_some() {
        return Err(usage(
            "a manifest says its version itself",
            "leave out the version, or name the directory",
        ));
    }
    let (product, version) = publish::named_by(&args.place)?;
    if args.product.as_ref().is_some_and(|wanted| *wanted != product) {
        let what = format!("`{}` is of product `{product}`", escaped_path(&args.place));
        return Err(usage(what, "leave out `--product`, or name another manifest"));
    }
    let directory = args.place.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((directory.unwrap_or(Path::new(".")).to_owned(), Some(product), Some(version)))
}

pub fn trust(context: &Context, command: &TrustCommand) -> Result<u8, Error> {
    match command {
        TrustCommand::Show => show(context),
        TrustCommand::ForgetChannel { name } => forget(context, name),
    }
}

fn show(context: &Context) -> Result<u8, Error> {
    context.with_node("trust", |node| {
        let keyring = node.keyring()?;
        let now = node.clock.wall();
        let standing = |key: &TrustedKey| match (keyring.is_revoked(key), key.is_valid_at(now)) {
            (true, _) => "revoked",
            (false, false) => "not valid now",
            (false, true) => "trusted",
        };
        let roles = |key: &TrustedKey| {
            let all = [Namespace::Release, Namespace::Channel, Namespace::Fleet];
            all.into_iter().filter(|role| key.may_sign(*role)).map(Namespace::as_str).collect::<Vec<_>>()
        };
        let keys: Vec<_> = keyring
            .keys()
            .iter()
            .map(|key| {
                json!({
                    "key": key.fingerprint(), "name": key.name, "roles": roles(key), "standing": standing(key),
                    "valid_after": key.valid_after, "valid_before": key.valid_before,
                })
            })
            .collect();
        let channels = node.store.trusted_state()?.channels;
        let mut lines: Vec<_> = keyring
            .keys()
            .iter()
            .map(|key| format!("{}  {}  {}  {}", key.fingerprint(), standing(key), roles(key).join(","), key.name))
            .collect();
        if lines.is_empty() {
            lines.push("no key is trusted on this node".to_owned());
        }
        lines.extend(channels.iter().map(|(key, seen)| {
            format!("channel {key}: serial {}, issued {}", seen.serial, seen.issued)
        }));
        let settings = &node.settings.source;
        let value = json!({
            "keys": keys, "channels": channels, "threshold": settings.threshold,
            "allow_unsigned": settings.allow_unsigned,
        });
        if settings.allow_unsigned {
            lines.push("releases without signatures are taken (`allow_unsigned`)".to_owned());
        }
        context.output.result(&value, &lines.join("\n"));
        Ok(0)
    })
}

fn forget(context: &Context, name: &str) -> Result<u8, Error> {
    context.with_node("trust", |node| {
        node.store.prepare()?;
        let mut memory = node.store.memory()?;
        let forgotten = judge::forget(&mut memory.channels, name);
        if forgotten.is_empty() {
            context.output.result(&json!({"forgotten": []}), &format!("nothing is remembered of channel `{name}`"));
            return Ok(0);
        }
        memory.keep()?;
        let highest = forgotten.iter().map(|(_, seen)| seen.serial).max().unwrap_or_default();
        tracing::warn!(channel = name, serial = highest, by = %node.by, "what was seen of a channel is forgotten");
        let text = format!("forgotten: channel `{name}`, up to serial {highest}; the next one that is signed is taken");
        context.output.result(&json!({"forgotten": forgotten}), &text);
        Ok(0)
    })
}
