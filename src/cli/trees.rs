//! `list`, `verify`, `diff`, `prune` and `adopt`: the trees of this node.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::context::Context;
use super::failure::{Error, code};
use super::output::table;
use super::update::no_such_release;
use crate::cli::output::progress;
use crate::cli::words::args::{AdoptArgs, DiffArgs, ListArgs, PruneArgs, VerifyArgs};
use crate::health;
use crate::lifecycle::node::Node;
use crate::lifecycle::node::adopt::{self, Origin};
use crate::lifecycle::node::touched::in_words;
use crate::release::scan;
use crate::store::{Kept, Sealed};
use crate::types::entry::{Entry, Kind};
use crate::types::{Size, Version, escaped, escaped_path};

pub fn list(context: &Context, args: &ListArgs) -> Result<u8, Error> {
    context.with_node("list", |node| {
        let state = node.store.trusted_state().unwrap_or_default();
        let active = node.store.active().ok().flatten();
        let in_use = health::in_use(&node.store.layout.releases());
        let mut rows =
            vec![["VERSION", "STATE", "SERIAL", "SIZE", "STAGED", "USED BY"].map(str::to_owned).to_vec()];
        let mut values = Vec::new();
        for version in node.store.releases()? {
            let sealed = match node.store.sealed(&version)? {
                Kept::Whole(sealed) => Some(sealed),
                Kept::Missing | Kept::Damaged(_) => None,
            };
            let digest = sealed.as_ref().map(|sealed| sealed.release.digest);
            let is = |kept: &Option<crate::types::state::Installed>| {
                kept.as_ref().is_some_and(|kept| kept.release.version == version)
            };
            let mut states = Vec::new();
            if active.as_ref() == Some(&version) {
                states.push("active");
            }
            if is(&state.previous) {
                states.push("previous");
            }
            if state.pins.contains(&version) {
                states.push("pinned");
            }
            if state.bad.iter().any(|bad| Some(bad.release.digest) == digest) {
                states.push("bad");
            }
            if sealed.is_none() {
                states.push("unknown");
            }
            if states.is_empty() {
                states.push("staged");
            }
            let users = in_use.iter().find(|(tree, _)| tree.ends_with(version.as_str()));
            let pids = users.map(|(_, pids)| pids.clone()).unwrap_or_default();
            let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            rows.push(vec![
                version.to_string(),
                states.join(" "),
                text(sealed.as_ref().and_then(|sealed| sealed.serial).map(|serial| serial.to_string())),
                text(sealed.as_ref().map(|sealed| Size(sealed.bytes).to_string())),
                text(sealed.as_ref().map(|sealed| sealed.staged.strftime("%Y-%m-%d %H:%M:%SZ").to_string())),
                pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            ]);
            values.push(json!({
                "version": version, "state": states, "digest": digest, "pids": pids,
                "serial": sealed.as_ref().and_then(|sealed| sealed.serial),
                "bytes": sealed.as_ref().map(|sealed| sealed.bytes),
                "entries": sealed.as_ref().map(|sealed| sealed.entries),
                "staged": sealed.as_ref().map(|sealed| sealed.staged),
                "signers": sealed.as_ref().map(|sealed| sealed.signers.clone()),
            }));
        }
        let mut text = if values.is_empty() { "no release is on this node".to_owned() } else { table(&rows) };
        let mut value = json!({"releases": values});
        if args.available {
            // To look is not to accept: nothing is remembered.
            let offered = Node { is_dry: true, ..node.with_settings(node.settings) }.offers()?;
            let names: Vec<_> = offered.iter().map(|release| release.version.as_str()).collect();
            text = format!("{text}\noffered: {}", names.join(" "));
            value["available"] = json!(offered);
        }
        context.output.result(&value, &text);
        Ok(0)
    })
}

pub fn verify(context: &Context, args: &VerifyArgs) -> Result<u8, Error> {
    context.with_node("verify", |node| {
        let version = match &args.version {
            Some(version) => version.clone(),
            None => node
                .store
                .active()?
                .ok_or_else(|| Error::NoSuchRelease { what: "current".into(), nearest: None })?,
        };
        if node.store.tree(&version).is_err() {
            return Err(no_such_release(node, version.as_str()));
        }
        let sealed = node.store.release(&version)?;
        let is_whole = node.verify(&sealed, progress::shown(&context.global).as_ref())?;
        let mut still_there = Vec::new();
        if !is_whole {
            if !args.repair {
                return Err(differs(node, version));
            }
            still_there = repair(context, node, args, &sealed)?;
        }
        let value = json!({
            "version": version, "ok": true, "repaired": !is_whole, "entries": sealed.entries, "bytes": sealed.bytes,
            "still_in_the_old_tree": still_there,
        });
        let mut text = format!(
            "release {version} is intact{}: {} entries, {}",
            if is_whole { "" } else { " again" },
            sealed.entries,
            Size(sealed.bytes)
        );
        if !still_there.is_empty() {
            text += &format!("\n{}", restart_words(&still_there, &node.settings.service.units));
        }
        context.output.result(&value, &text);
        Ok(0)
    })
}

/// Names what differs, and which other releases have the same files.
fn differs(node: &Node<'_>, version: Version) -> Error {
    let touched = node.differences(&version).unwrap_or_default();
    let what = if touched.is_empty() { String::new() } else { in_words(&touched) };
    Error::Differs { version, what }
}

/// Who runs from the tree that was replaced goes on with what it has loaded, and counts as old at the next update.
fn restart_words(pids: &[u32], units: &[String]) -> String {
    let named: Vec<_> = pids.iter().take(5).map(ToString::to_string).collect();
    let who = match named.as_slice() {
        [one] => format!("process {one} still runs"),
        _ => format!("{} processes ({}) still run", pids.len(), named.join(", ")),
    };
    let how = match units {
        [] => "restart it".to_owned(),
        _ => format!("`systemctl restart {}`", units.join(" ")),
    };
    format!("{who} from the tree that was replaced, and no update goes on beside that: {how}")
}

/// Makes a tree what it must be, and looks at it again. Tells who uses the one that was there.
fn repair(context: &Context, node: &Node<'_>, args: &VerifyArgs, sealed: &Sealed) -> Result<Vec<u32>, Error> {
    let _lock = node.lock_staging()?;
    let version = &sealed.release.version;
    let candidate = match &args.from {
        Some(file) => node.candidate_of_file(file, Some(version), args.allow_unsigned)?,
        None => node.look(Some(version))?.1,
    };
    let shown = progress::shown(&context.global);
    let users = health::in_use(&node.store.layout.releases()).remove(Path::new(version.as_str()));
    node.repair(&candidate, sealed, args.from.is_some() && candidate.is_ours, shown.as_ref())?;
    if !node.verify(sealed, shown.as_ref())? {
        return Err(differs(node, version.clone()));
    }
    let is_there = |pid: &u32| Path::new("/proc").join(pid.to_string()).exists();
    Ok(users.unwrap_or_default().into_iter().filter(is_there).collect())
}

pub fn diff(context: &Context, args: &DiffArgs) -> Result<u8, Error> {
    context.with_node("diff", |node| {
        // Fifos and devices, which no release has, are no entries.
        let read = |version: &Version| -> Result<BTreeMap<Vec<u8>, Option<Entry>>, Error> {
            let tree = node.store.tree(version).map_err(|_| no_such_release(node, version.as_str()))?;
            let mut entries = BTreeMap::new();
            let mut walk = scan::walk(&tree)?;
            for entry in walk.by_ref() {
                let entry = entry?;
                entries.insert(entry.path.clone(), Some(entry));
            }
            entries.extend(walk.others().iter().map(|path| (path.clone(), None)));
            Ok(entries)
        };
        let (one, other) = (read(&args.one)?, read(&args.other)?);
        let mut changes = Vec::new();
        for (path, entry) in &one {
            match other.get(path) {
                None => changes.push(("removed", path, size_of(entry), None)),
                Some(after) if after != entry => {
                    changes.push(("changed", path, size_of(entry), size_of(after)))
                }
                Some(_) => {}
            }
        }
        for (path, entry) in other.iter().filter(|(path, _)| !one.contains_key(*path)) {
            changes.push(("added", path, None, size_of(entry)));
        }
        changes.sort_by(|a, b| a.1.cmp(b.1));
        let rows: Vec<Vec<String>> = changes
            .iter()
            .map(|(what, path, before, after)| {
                let size = |size: &Option<u64>| size.map_or_else(|| "-".to_owned(), |size| size.to_string());
                vec![(*what).to_owned(), size(before), size(after), escaped(path)]
            })
            .collect();
        let values: Vec<_> = changes
            .iter()
            .map(|(what, path, before, after)| {
                json!({"change": what, "path": escaped(path), "bytes_before": before, "bytes_after": after})
            })
            .collect();
        let text = if rows.is_empty() { "they are the same".to_owned() } else { table(&rows) };
        context.output.result(&json!({"a": args.one, "b": args.other, "changes": values}), &text);
        Ok(0)
    })
}

fn size_of(entry: &Option<Entry>) -> Option<u64> {
    match entry.as_ref()?.kind {
        Kind::File { size, .. } => Some(size),
        Kind::Directory | Kind::Link { .. } => None,
    }
}

pub fn prune(context: &Context, args: &PruneArgs) -> Result<u8, Error> {
    context.with_node("prune", |node| {
        let locks = if args.dry_run { None } else { Some((node.lock_staging()?, node.lock()?)) };
        if locks.is_some() && node.has_rehearsal_left() {
            super::rehearse::sweep_rehearsal(node)?;
        }
        let pruned = node.prune(args.dry_run)?;
        let would = if args.dry_run { "would remove" } else { "removed" };
        let mut lines: Vec<String> =
            pruned.removed.iter().map(|version| format!("{would} release {version}")).collect();
        for (version, pids) in &pruned.in_use {
            let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
            lines.push(format!("kept release {version}: used by process {}", pids.join(", ")));
        }
        for (version, why) in &pruned.failed {
            lines.push(format!("could not remove release {version}: {why}"));
        }
        if pruned.swept > 0 {
            lines.push(format!("cleared away {} leftovers of interrupted runs", pruned.swept));
        }
        for (path, why) in &pruned.left {
            lines.push(format!("could not clear away `{}`: {why}", escaped_path(path)));
        }
        for version in &pruned.strangers {
            lines.push(format!("left alone `{version}`: nothing tells that it was staged here"));
        }
        if lines.is_empty() {
            lines.push("nothing to remove".into());
        }
        context.output.result(&pruned, &lines.join("\n"));
        Ok(if pruned.failed.is_empty() && pruned.left.is_empty() { 0 } else { code::FAILED })
    })
}

pub fn adopt(context: &Context, args: &AdoptArgs) -> Result<u8, Error> {
    context.with_node("adopt", |node| {
        let _staging = node.lock_staging()?;
        let _lock = node.lock()?;
        node.ensure_at_rest()?;
        let Some(path) = &args.path else { return undo_adoption(context, node) };
        let progress = progress::shown(&context.global);
        let (sealed, adopted) = adopt::adopt(node, path, args.version.as_ref(), progress.as_ref())?;
        let version = &sealed.release.version;
        let tree = escaped_path(&node.store.layout.tree(version));
        let mut lines = Vec::new();
        match &adopted.origin {
            Origin::Moved(from) => lines.push(format!("moved `{}` to `{tree}`", escaped_path(from))),
            Origin::Copied(from) => lines.push(format!(
                "copied `{}` to `{tree}`; the old directory is left alone, remove it when all runs from `current`",
                escaped_path(from)
            )),
            Origin::InPlace => {}
        }
        lines.push(format!("`{}` names it now", escaped_path(&node.store.layout.current())));
        lines.push(format!(
            "release {version} is adopted and active; the first rollback leads back to it; `cutover adopt --undo` puts all \
             back until the first switch"
        ));
        if sealed.entries == 0 {
            context.output.say("warning: the directory was empty: nothing runs from it, and nothing comes back with it");
        }
        let value = json!({
            "version": version, "digest": sealed.release.digest, "entries": sealed.entries, "origin": adopted.origin,
        });
        context.output.result(&value, &lines.join("\n"));
        node.narrator.ended();
        Ok(0)
    })
}

fn undo_adoption(context: &Context, node: &Node<'_>) -> Result<u8, Error> {
    let adopted = adopt::undo(node)?;
    let text = match &adopted.origin {
        Origin::Moved(to) => format!("`{}` is back where it was", escaped_path(to)),
        Origin::Copied(from) => format!("the copy is removed; `{}` is as it was", escaped_path(from)),
        Origin::InPlace => "the directory stays where it is".to_owned(),
    };
    let value = json!({"version": adopted.version, "origin": adopted.origin});
    context.output.result(&value, &format!("release {} is no release any more; {text}", adopted.version));
    node.narrator.ended();
    Ok(0)
}
