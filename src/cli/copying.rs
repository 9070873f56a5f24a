//! `copy`, and what `publish --to` does beyond `publish`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::failure::Error;
use super::output::Output;
use crate::cli::output::progress;
use crate::cli::words::args::Global;
use crate::cli::words::signing_args::CopyArgs;
use crate::release::channel::{CHANNEL_BYTES_MAX, next_name};
use crate::release::copy::{Copied, CopyOrder, copy as copy_all};
use crate::release::publish::{self, PublishOrder};
use crate::release::resolve;
use crate::release::source::{self, Before, Item, Of, Settings, Sink, Source};
use crate::release::trust::{SIGNATURES_BYTES_MAX, signature_file};
use crate::sys::disk::Disk;
use crate::types::{Digest, Size, escaped};

/// A place that is read, and brought to.
pub struct Target {
    there: Box<dyn Source>,
    to: Box<dyn Sink>,
    channel: String,
}

pub fn copy(global: &Global, args: &CopyArgs) -> Result<u8, Error> {
    let from = source::open(&settings(&args.from, args.from_credentials.as_deref()))
        .map_err(resolve::Error::Source)?;
    let target = Target::open(&args.to, args.credentials.as_deref(), &args.channel)?;
    let copied = target.bring(global, from.as_ref(), args.all, None, args.dry_run)?;
    let (value, text) = told(&copied, &args.to, args.dry_run);
    Output::new(global).result(&value, &text);
    Ok(0)
}

impl Target {
    /// The place at this address. Nobody is asked yet.
    pub fn open(url: &str, credentials: Option<&Path>, channel: &str) -> Result<Self, Error> {
        let path = url.strip_prefix("file://").unwrap_or(url);
        if !path.contains("://") && !Path::new(path).is_dir() {
            let what = format!("there is no directory `{}` to copy to", escaped(path.as_bytes()));
            let hint = Some("make it (`mkdir`), or mount what belongs there".to_owned());
            return Err(Error::Usage { what, hint });
        }
        let settings = settings(url, credentials);
        let there = source::open(&settings).map_err(resolve::Error::Source)?;
        let to = source::open_sink(&settings).map_err(resolve::Error::Source)?;
        Ok(Self { there, to, channel: channel.to_owned() })
    }

    /// Takes the channel that is there into the directory that is published from, as the ground for the next one. Says
    /// what must be there still when that is brought.
    pub fn take_channel(&self, order: &PublishOrder, disk: &Disk) -> Result<Before, Error> {
        let directory = &order.into;
        let (of, name) = (Of::Channel(&self.channel), format!("{}.channel", self.channel));
        let read =
            |name: &str, limit| self.there.small(Item { of, name }, limit).map_err(resolve::Error::Source);
        let write =
            |path: &Path, bytes: &[u8]| disk.replace(path, bytes, 0o644).map_err(publish::Error::Disk);
        let Some(bytes) = read(&name, CHANNEL_BYTES_MAX)? else { return Ok(Before::Absent) };
        publish::check_product(order, &bytes, &Path::new(&self.there.place()).join(&name))?;
        let signature = read(&format!("{name}.sig"), SIGNATURES_BYTES_MAX)?;
        // A publisher that was interrupted there has left what comes next.
        let next = next_name(&name);
        if let (Some(bytes), Some(signature)) =
            (read(&next, CHANNEL_BYTES_MAX)?, read(&format!("{next}.sig"), SIGNATURES_BYTES_MAX)?)
        {
            write(&signature_file(&directory.join(&next)), &signature)?;
            write(&directory.join(&next), &bytes)?;
        }
        let path = directory.join(&name);
        match signature {
            Some(signature) => write(&signature_file(&path), &signature)?,
            None => disk.remove_file(&signature_file(&path)).map_err(publish::Error::Disk)?,
        }
        write(&path, &bytes)?;
        Ok(Before::Content(Digest::of(&bytes)))
    }

    /// Brings what was published in a directory.
    pub fn publish(
        &self,
        global: &Global,
        from: &dyn Source,
        before: Before,
        is_dry: bool,
    ) -> Result<Copied, Error> {
        self.bring(global, from, false, Some(before), is_dry)
    }

    fn bring(
        &self,
        global: &Global,
        from: &dyn Source,
        is_complete: bool,
        before: Option<Before>,
        is_dry: bool,
    ) -> Result<Copied, Error> {
        let order = CopyOrder {
            from,
            there: self.there.as_ref(),
            to: self.to.as_ref(),
            channel: &self.channel,
            is_complete,
            before,
            is_dry,
        };
        let copied = copy_all(&order, progress::shown(global).as_ref());
        Ok(copied?)
    }
}

/// What was copied, for programs and for people.
pub fn told(copied: &Copied, to: &str, is_dry: bool) -> (Value, String) {
    let to = escaped(to.split('?').next().unwrap_or_default().as_bytes());
    let value = json!({
        "to": to, "version": copied.release.version, "digest": copied.release.digest, "serial": copied.serial,
        "releases": copied.releases, "bytes": copied.bytes, "channel": copied.is_channel_new, "dry_run": is_dry,
    });
    let is_all_there = copied.releases.is_empty() && !copied.is_channel_new;
    let releases: Vec<String> = copied.releases.iter().map(ToString::to_string).collect();
    let verb = if is_dry { "would be brought" } else { "brought" };
    let text = match (is_all_there, releases.is_empty()) {
        (true, _) => {
            format!("{to}: all is there: release {}, serial {}", copied.release.version, copied.serial)
        }
        (false, true) => format!("{to}: channel {verb}, serial {}", copied.serial),
        (false, false) => format!(
            "{to}: release {} {verb} ({}); channel names {}, serial {}",
            releases.join(", "),
            Size(copied.bytes),
            copied.release.version,
            copied.serial
        ),
    };
    (value, text)
}

/// The settings of a place that was named on the command line. A path may be relative.
fn settings(url: &str, credentials: Option<&Path>) -> Settings {
    let absolute = |path: &str| std::path::absolute(path).ok()?.to_str().map(str::to_owned);
    let url = match url.contains("://") {
        true => url.to_owned(),
        false => absolute(url).unwrap_or_else(|| url.to_owned()),
    };
    let credentials: Option<PathBuf> =
        credentials.map(|path| std::path::absolute(path).unwrap_or(path.to_owned()));
    let credentials = credentials.map(|path| path.to_string_lossy().into_owned());
    Settings { url: Some(url), credentials, ..Settings::default() }
}
