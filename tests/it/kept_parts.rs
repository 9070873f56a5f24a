//! Parts that were kept of an archive never jam a node: they are thrown away with the first failure that they may have.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::plan::noise;
use crate::refusals::Desk;
use crate::web::{Asked, Server, file, status};

/// How the server answers: well, with other bytes, or with a part of what it should send.
const WELL: usize = 0;
const STALE: usize = 1;
const CUT: usize = 2;
const STALE_THEN_CUT: usize = 3;

/// A desk whose node follows a server; release 2.0 is published, and has a few megabytes.
fn desk() -> (Desk, Server, Arc<AtomicUsize>) {
    let desk = Desk::new();
    for number in 0..40 {
        fs::write(desk.path(&format!("app/{number:02}")), noise(number, 80_000)).unwrap();
    }
    desk.release("2.0");
    let mode = Arc::new(AtomicUsize::new(WELL));
    let (asks, directory) = (Arc::clone(&mode), desk.path("source"));
    let server = Server::new(move |asked: &Asked, stream| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        let Ok(mut bytes) = fs::read(directory.join(name)) else {
            return status(stream, "404 Not Found", "", b"");
        };
        let tag = format!("\"{}\"", bytes.len());
        let is_frame =
            name.ends_with(".zst") && asked.range().is_some_and(|(first, _)| first < bytes.len() / 2);
        match asks.load(Ordering::SeqCst) {
            STALE if is_frame => {
                bytes.fill(7);
                file(asked, stream, &bytes, &tag, usize::MAX)
            }
            CUT if is_frame => file(asked, stream, &bytes, &tag, 700_000),
            STALE_THEN_CUT if is_frame => {
                // So short a lie that no frame ends in it, wherever frames are cut.
                bytes[2_400_000..].fill(7);
                file(asked, stream, &bytes, &tag, 2_400_100)
            }
            _ => file(asked, stream, &bytes, &tag, usize::MAX),
        }
    });
    let text = fs::read_to_string(desk.path("node.toml")).unwrap();
    let url = text.lines().find(|line| line.starts_with("url")).unwrap();
    let ours = format!("url = \"{}\"\nretries = 0", server.url());
    fs::write(desk.path("node.toml"), text.replace(url, &ours)).unwrap();
    (desk, server, mode)
}

#[test]
fn one_wrong_answer_of_a_server_is_not_kept() {
    let (desk, _server, mode) = desk();
    mode.store(STALE, Ordering::SeqCst);
    let (code, said) = desk.update();
    assert_eq!(code, 12, "{said}");
    mode.store(WELL, Ordering::SeqCst);
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, "2.0"), "{said}");
}

#[test]
fn zeros_that_a_power_cut_leaves_under_a_whole_map_are_read_again() {
    for damage in [0_u64, 1] {
        let (desk, _server, mode) = desk();
        mode.store(CUT, Ordering::SeqCst);
        let (code, said) = desk.update();
        assert_ne!(code, 0, "{said}");
        let parts = parts(&desk);
        let length = fs::metadata(&parts).unwrap().len();
        assert!(length > 100_000, "{length}");
        let file = fs::File::options().write(true).open(&parts).unwrap();
        file.set_len(0).unwrap();
        // All zeros, or nothing at all.
        file.set_len(length * damage).unwrap();
        mode.store(WELL, Ordering::SeqCst);
        let (code, said) = desk.update();
        assert_eq!((code, desk.active().as_str()), (0, "2.0"), "{damage}: {said}");
    }
}

#[test]
fn what_was_compared_is_kept_and_what_was_only_read_is_read_again() {
    let (desk, server, mode) = desk();
    mode.store(STALE_THEN_CUT, Ordering::SeqCst);
    let (code, said) = desk.update();
    assert_eq!(code, 1, "{said}");
    assert!(fs::metadata(parts(&desk)).unwrap().len() > 2_300_000);
    let before = server.asked().len();
    mode.store(WELL, Ordering::SeqCst);
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, "2.0"), "{said}");
    let asked = server.asked();
    let parts = asked[before..].iter().filter(|asked| asked.path.ends_with(".zst"));
    let parts: Vec<_> = parts.filter_map(Asked::range).filter(|range| *range != (0, 0)).collect();
    // What had come before the frame with the lie was compared.
    let first = parts.iter().map(|range| range.0).min().unwrap();
    assert!((1_000_000..2_400_000).contains(&first), "{parts:?}");
}

/// The file of kept parts.
fn parts(desk: &Desk) -> PathBuf {
    let mut directories = vec![desk.path("root/.cutover")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "parts") {
                return path;
            }
        }
    }
    panic!("no parts were kept");
}
