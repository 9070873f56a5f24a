//! Reads frames and has several threads unpack them.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::error::malformed;
use super::super::{Error, FrameKind};
use super::StageOrder;
use super::failure::Failure;
use super::fetch::fetch;
use super::lay::Layout;
use super::names::Names;
use super::unpack::{Bytes, Job, Shared, Unpacker};
use super::work::Plan;
use crate::release::source::Ranges;
use crate::release::tree::flush_behind;
use crate::sys::disk::{Context as _, Disk};
use crate::sys::{kernel::btrfs, wall};
use crate::types::progress::Progress;

/// More threads than these gain nothing: they wait for the same directories.
const THREADS_MAX: usize = 4;

/// Unpacks all frames that are needed. Gives the number of bytes read.
pub fn run(
    archive: &dyn Ranges,
    order: &StageOrder<'_>,
    layout: &mut Layout<'_>,
    filesystem: &File,
    disk: &Disk,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let is_complete = layout.is_complete();
    if is_complete {
        layout.plan.add_names()?;
    }
    let mut plan = std::mem::replace(&mut layout.plan, Plan::empty());
    if plan.work.is_empty() && plan.here.is_empty() {
        return Ok(0);
    }
    let (written, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let failure = Failure::default();
    let shared = Shared {
        root: Arc::clone(&layout.root),
        owner: layout.owner,
        is_complete,
        inodes: &layout.inodes[..],
        parts: order.parts,
        failure: &failure,
        written: &written,
        progress,
    };
    let names = [
        Names::new(layout.links.entries()),
        Names::new(layout.hard_links.entries()),
        Names::new(layout.directories.entries()),
    ];
    // On btrfs the time goes to the kernel's own threads: early syncs only make it write its metadata more often.
    let is_flushed = !btrfs::is_btrfs(order.into).context("look at", order.into)?;
    std::thread::scope(|scope| {
        let flusher = is_flushed
            .then(|| scope.spawn(|| flush_behind(filesystem, order.into, disk, &written, &is_over)));
        let unpacked = unpack(archive, order, &mut plan, &shared, names);
        is_over.store(true, Ordering::Release);
        if let Some(flusher) = flusher {
            flusher.thread().unpark();
            let flushed = flusher.join();
            flushed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        unpacked
    })
}

/// Frames are read here, and looked into behind a wall: by threads that can change nothing but the tree.
fn unpack(
    archive: &dyn Ranges,
    order: &StageOrder<'_>,
    plan: &mut Plan,
    shared: &Shared<'_>,
    names: [Names<'_>; 3],
) -> Result<u64, Error> {
    let threads = threads(order.threads).min(plan.work.len() + plan.here.len());
    let (give, take) = sync_channel::<Job>(threads);
    let (give_names, take_names) = sync_channel::<Job>(1);
    let take = Mutex::new(take);
    let failure = shared.failure;
    let mut work = std::mem::take(&mut plan.work);
    let mut here = std::mem::take(&mut plan.here);
    plan.work = work.keys().map(|number| (*number, super::work::Work::default())).collect();
    let fetched = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                wall::enter(Some(&*shared.root));
                failure.keep(work_off(shared, &take));
            });
        }
        scope.spawn(move || {
            wall::enter(None);
            failure.keep(compare_names(shared, take_names, names));
        });
        // Owned here, so that the threads end when the last frame was given.
        let (give, give_names) = (give, give_names);
        let send = |number: usize, bytes, work| {
            if failure.is_set() {
                return Err(malformed("the work", "it was given up"));
            }
            let frame = plan.frames[number];
            let (start, plain_start) = (plan.starts[number], plan.plain_starts[number]);
            let job = Job { frame, bytes, start, plain_start, work };
            let has_files = matches!(frame.kind, FrameKind::Group | FrameKind::Chunk);
            let given = if has_files { give.send(job) } else { give_names.send(job) };
            given.map_err(|_| malformed("the work", "it was given up"))
        };
        // The chunks of a file are written one after the other, whatever they come from.
        let mut send_here_before = |end: usize| {
            while let Some(first) = here.first_entry().filter(|first| *first.key() < end) {
                let (number, (work, here)) = first.remove_entry();
                send(number, Bytes::Here(here), work)?;
            }
            Ok(())
        };
        fetch(archive, plan, shared.progress, &mut |number, bytes| {
            send_here_before(number)?;
            let Some(work) = work.remove(&number) else { return Ok(()) };
            send(number, Bytes::Read(bytes), work)
        })
        .and_then(|fetched| send_here_before(usize::MAX).map(|()| fetched))
        // Threads that wait for a frame that will not come look whether somebody has failed.
        .inspect_err(|_| failure.give_up())
    });
    failure.result()?;
    fetched
}

/// Compares the members without content with the index.
fn compare_names(shared: &Shared<'_>, take: Receiver<Job>, mut names: [Names<'_>; 3]) -> Result<(), Error> {
    let mut unpacker = Unpacker::new(shared)?;
    for Job { frame, bytes, start, .. } in take {
        if let (Some(names), Bytes::Read(bytes)) = (names_of(&mut names, frame.kind), bytes) {
            let plain = unpacker.decompress(&frame, start, &bytes)?;
            names.check(frame.kind, &plain)?;
        }
    }
    if shared.is_complete && !shared.failure.is_set() {
        let kinds = [FrameKind::Links, FrameKind::HardLinks, FrameKind::End];
        for (names, kind) in names.into_iter().zip(kinds) {
            names.finish(kind)?;
        }
    }
    Ok(())
}

fn names_of<'a, 'b>(names: &'a mut [Names<'b>; 3], kind: FrameKind) -> Option<&'a mut Names<'b>> {
    match kind {
        FrameKind::Links => Some(&mut names[0]),
        FrameKind::HardLinks => Some(&mut names[1]),
        FrameKind::End => Some(&mut names[2]),
        FrameKind::Group | FrameKind::Chunk => None,
    }
}

fn work_off(shared: &Shared<'_>, take: &Mutex<Receiver<Job>>) -> Result<(), Error> {
    let failure = shared.failure;
    let mut unpacker = Unpacker::new(shared)?;
    loop {
        let job = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return Ok(()) };
        // After a failure the frames are only taken, so that nobody waits to give them.
        if !failure.is_set() {
            failure.keep(unpacker.unpack(job));
        }
    }
}

fn threads(wanted: usize) -> usize {
    if wanted > 0 {
        return wanted;
    }
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}
