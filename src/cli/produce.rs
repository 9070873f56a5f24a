//! `pack`: the producer's side.

use serde_json::json;

use super::args::{Global, PackArgs};
use super::failure::Error;
use super::output::Output;
use super::progress;
use crate::release::manifest::Manifest;
use crate::release::pack::{self, PackOrder};
use crate::release::source::local;
use crate::sys::disk::Disk;
use crate::types::{Digest, Size};

/// `pack`
pub fn pack(global: &Global, args: &PackArgs, disk: &Disk) -> Result<u8, Error> {
    let output = Output::new(global);
    let usage = |what: &str, hint: &str| Error::Usage { what: what.to_owned(), hint: Some(hint.to_owned()) };
    let manifest_path = local::manifest_beside(&args.output).ok_or_else(|| {
        usage("the archive must be named `….tar.zst`", "for example `-o shop-1.4.2.tar.zst`")
    })?;
    let name = args.output.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| usage("the archive's name must be UTF-8", "choose another name"))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let order = PackOrder {
        directory: args.directory.clone(),
        product: args.product.clone(),
        version: args.version.clone(),
        output: args.output.clone(),
        base: args.base.clone(),
        level: args.level,
        jobs,
    };
    let packed = pack::pack(&order, disk, progress::shown(global).as_ref())?;
    let manifest = Manifest {
        product: args.product.clone(),
        version: args.version.clone(),
        archive: name.to_owned(),
        size: packed.size,
        sha256: packed.sha256,
        unpacked: Some(packed.unpacked),
        entries: Some(packed.entries),
        index: Some(packed.index),
        tree: Some(packed.tree),
        compatible: Vec::new(),
        data_read: args.data_read.clone(),
        data_write: args.data_write,
        extras: Vec::new(),
    };
    let text = manifest.to_text();
    disk.replace(&manifest_path, text.as_bytes(), 0o644)?;
    let digest = Digest::of(text.as_bytes());
    let value = json!({
        "archive": args.output, "manifest": manifest_path, "digest": digest, "sha256": packed.sha256,
        "tree": packed.tree, "size": packed.size, "unpacked": packed.unpacked, "entries": packed.entries,
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
