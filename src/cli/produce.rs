//! `pack`: the producer's side.

use std::path::Path;

use serde_json::json;

use super::failure::Error;
use super::output::Output;
use crate::cli::output::progress;
use crate::cli::words::args::{Global, PackArgs};
use crate::release::manifest::Manifest;
use crate::release::pack::{self, Owners, PackOrder};
use crate::release::source::local;
use crate::sys::disk::Disk;
use crate::types::{Digest, Size, escaped};

pub fn pack(global: &Global, args: &PackArgs, disk: &Disk) -> Result<u8, Error> {
    let output = Output::new(global);
    let usage = |what: &str, hint: &str| Error::Usage { what: what.to_owned(), hint: Some(hint.to_owned()) };
    let misnamed = || usage("the archive must be named `….tar.zst`", "for example `-o shop-1.4.2.tar.zst`");
    let manifest_path = local::manifest_beside(&args.output).ok_or_else(misnamed)?;
    // Read by its name elsewhere: whoever unpacks it goes by that.
    if !args.output.as_os_str().as_encoded_bytes().ends_with(b".tar.zst") {
        return Err(misnamed());
    }
    let name = args.output.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| usage("the archive's name must be UTF-8", "choose another name"))?;
    let mut manifest = drafted(args, name)?;
    if is_within(&args.output, &args.directory) {
        return Err(usage(
            "the archive would be written into the directory that it packs",
            "write it beside that directory",
        ));
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    // `pack current` means what the link leads to.
    let behind = args.directory.is_symlink().then(|| args.directory.canonicalize().ok()).flatten();
    let order = PackOrder {
        directory: behind.unwrap_or_else(|| args.directory.clone()),
        product: args.product.clone(),
        version: args.version.clone(),
        output: args.output.clone(),
        base: args.base.clone(),
        level: args.level,
        jobs,
        owners: match (args.keep_owner, args.owner) {
            (true, _) => Owners::Kept,
            (false, Some((uid, gid))) => Owners::These(uid, gid),
            (false, None) => Owners::Root,
        },
    };
    let is_replaced = args.output.exists();
    let mut text = String::new();
    let packed = pack::pack_with(&order, disk, progress::shown(global).as_ref(), |packed| {
        manifest.size = packed.size;
        manifest.sha256 = packed.sha256;
        manifest.unpacked = Some(packed.unpacked);
        manifest.entries = Some(packed.entries);
        manifest.index = Some(packed.index);
        manifest.tree = Some(packed.tree);
        text = manifest.to_text();
        disk.replace(&manifest_path, text.as_bytes(), 0o644)
    })?;
    if is_replaced {
        output.say(&format!("note: `{}` is replaced", args.output.display()));
    }
    let left_out: Vec<_> = packed.left_out.iter().map(|path| escaped(path)).collect();
    for path in &left_out {
        output.say(&format!("note: `{path}` is a socket, which no release carries: it is left out"));
    }
    let digest = Digest::of(text.as_bytes());
    let value = json!({
        "archive": args.output, "manifest": manifest_path, "digest": digest, "sha256": packed.sha256,
        "tree": packed.tree, "size": packed.size, "unpacked": packed.unpacked, "entries": packed.entries,
        "left_out": left_out,
    });
    let told = format!(
        "release {} of {}: {} entries, {} in {}\n  archive   {}\n  manifest  {}\n  digest    {digest}",
        args.version,
        args.product,
        packed.entries,
        Size(packed.unpacked),
        Size(packed.size),
        args.output.display(),
        manifest_path.display(),
    );
    output.result(&value, &told);
    Ok(0)
}

/// The manifest with all that is known before anything is packed, if nodes would read it as it is meant.
fn drafted(args: &PackArgs, archive: &str) -> Result<Manifest, Error> {
    let draft = Manifest {
        product: args.product.clone(),
        version: args.version.clone(),
        archive: archive.to_owned(),
        size: 0,
        sha256: Digest::of(b""),
        unpacked: None,
        entries: None,
        index: None,
        tree: None,
        compatible: args.compatible.clone(),
        data_read: args.data_read.clone(),
        data_write: args.data_write,
        extras: Vec::new(),
    };
    match Manifest::parse(draft.to_text().as_bytes()) {
        Ok(read) if read == draft => Ok(draft),
        Ok(_) => Err(unreadable(&"a line break changes its meaning")),
        Err(error) => Err(unreadable(&error)),
    }
}

fn unreadable(why: &dyn std::fmt::Display) -> Error {
    Error::Usage {
        what: format!("no node would read this release's manifest: {why}"),
        hint: Some(
            "correct the option that it names; `--data-read` must list the epoch of `--data-write`".into(),
        ),
    }
}

/// Whether a file would be made within a directory.
fn is_within(file: &Path, directory: &Path) -> bool {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), directory.canonicalize()) {
        (Ok(folder), Ok(directory)) => folder.starts_with(directory),
        // Whichever is not there is told when it is opened.
        (Ok(_) | Err(_), _) => false,
    }
}
