//! What an update reads of an archive follows what has changed, within large files, too.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::plan::{noise, served};
use crate::refusals::Desk;
use crate::web::{Asked, Server};

const MIB: usize = 1 << 20;

/// Ranges of archives that were asked for, first and last byte; the question for the first one, which tells whether the
/// server has ranges, is left out.
fn ranges(asked: &[Asked]) -> Vec<(usize, usize)> {
    let archives = asked.iter().filter(|asked| asked.path.ends_with(".zst"));
    archives.filter_map(Asked::range).filter(|range| *range != (0, 0)).collect()
}

/// Makes or changes a file in each of ten directories.
fn write_in_each(desk: &Desk, name: usize, content: &str) {
    for directory in 0..10 {
        let directory = desk.path(&format!("app/{directory:02}"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{name:04}")), format!("{content} {name}\n")).unwrap();
    }
}

/// Packs a release on the one before, and publishes it.
fn release_on(desk: &Desk, before: &str, version: &str) {
    let [archive, base] = [version, before].map(|of| format!("source/shop-{of}.tar.zst"));
    desk.well(&["pack", "app", "--product", "shop", "--version", version, "-o", &archive, "--base", &base]);
    desk.well(&["publish", "source", version, "--product", "shop", "--key", "team"]);
}

/// A node with a release whose index is longer than the 256 KiB that are read of an archive's end at most, and its server.
fn with_a_large_index() -> (Desk, Server) {
    let desk = Desk::new();
    for name in 0..1000 {
        write_in_each(&desk, name, "content");
    }
    desk.release("2.0");
    let server = served(&desk);
    assert_eq!(desk.update().0, 0);
    (desk, server)
}

#[test]
fn pages_that_are_new_are_read_in_one_piece_however_far_apart_their_entries_are() {
    let (desk, server) = with_a_large_index();
    // The node follows to the next release, then over one that it does not see.
    write_in_each(&desk, 500, "changed");
    release_on(&desk, "2.0", "2.1");
    for (versions, version) in [(&[][..], "2.1"), (&[("2.1", "2.2", 100), ("2.2", "2.3", 900)], "2.3")] {
        for (before, version, name) in versions {
            write_in_each(&desk, *name, "changed");
            release_on(&desk, before, version);
        }
        let before = server.asked().len();
        let (code, said) = desk.update();
        assert_eq!((code, desk.active().as_str()), (0, version), "{said}");
        let asked = ranges(&server.asked()[before..]);
        let bytes: usize = asked.iter().map(|(first, last)| last + 1 - first).sum();
        // The end, the pages that are new, the files that are.
        assert!(asked.len() <= 3 && bytes < 100_000, "{version}: {bytes} bytes in {asked:?}");
    }
}

#[test]
fn the_eight_bytes_before_an_index_are_not_worth_a_request() {
    let (_desk, server) = with_a_large_index();
    let asked = ranges(&server.asked());
    let end = asked.iter().map(|(_, last)| last + 1).max();
    let tail = asked.iter().find(|(_, last)| Some(last + 1) == end).unwrap();
    assert!(tail.0 > 0 && asked.len() > 1, "the index is not longer than what is read of the end: {asked:?}");
    assert!(asked.iter().all(|(first, last)| last + 1 - first != 8), "{asked:?}");
}

/// Packs the next release, updates the node, and says how much of the archive was read, and how many bytes it has.
fn update(desk: &Desk, server: &Server, version: &str) -> (usize, usize) {
    desk.release(version);
    let before = server.asked().len();
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, version), "{said}");
    for name in ["large", "moved"] {
        let (new, old) = (desk.path("app").join(name), desk.path("root/current").join(name));
        assert!(fs::read(new).ok() == fs::read(old).ok(), "{version}: {name}");
    }
    let size = fs::metadata(desk.source(&format!("shop-{version}.tar.zst"))).unwrap().len();
    let asked = ranges(&server.asked()[before..]);
    (asked.iter().map(|(first, last)| last + 1 - first).sum(), usize::try_from(size).unwrap())
}

#[test]
fn chunks_that_a_file_here_has_are_not_read_again() {
    let desk = Desk::new();
    fs::write(desk.path("app/large"), noise(1, 64 * MIB)).unwrap();
    let server = served(&desk);
    let (read, whole) = update(&desk, &server, "2.0");
    assert!(read * 10 > whole * 9, "all is new: {read} of {whole}");
    let large = fs::File::options().write(true).open(desk.path("app/large")).unwrap();
    large.write_at(b"changed", 33 * MIB as u64).unwrap();
    let (read, whole) = update(&desk, &server, "2.1");
    assert!(read * 20 <= whole, "one change: {read} of {whole}");
    // A file that moved and grew at its beginning has the same chunks, elsewhere.
    let mut bytes = noise(2, 1000);
    bytes.extend(fs::read(desk.path("app/large")).unwrap());
    fs::remove_file(desk.path("app/large")).unwrap();
    fs::write(desk.path("app/moved"), bytes).unwrap();
    let (read, whole) = update(&desk, &server, "2.2");
    assert!(read * 20 <= whole, "moved: {read} of {whole}");
    // A file that somebody damaged, its size and time as they were, is not believed.
    let damaged = desk.path("root/current/moved");
    let time = fs::metadata(&damaged).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&damaged);
    let Ok(file) = file else { return };
    file.write_at(b"damaged", 50 * MIB as u64).unwrap();
    file.set_modified(time).unwrap();
    drop(file);
    let moved = fs::File::options().write(true).open(desk.path("app/moved")).unwrap();
    moved.write_at(b"again", 5 * MIB as u64).unwrap();
    let (read, whole) = update(&desk, &server, "2.3");
    assert!(read * 2 > whole, "what cannot be believed is read: {read} of {whole}");
}

#[test]
fn of_a_release_whose_record_is_broken_nothing_is_taken_and_of_the_next_one_all() {
    let desk = Desk::new();
    fs::write(desk.path("app/large"), noise(3, 4 * MIB)).unwrap();
    fs::write(desk.path("app/moved"), noise(4, 1000)).unwrap();
    let server = served(&desk);
    let (read, whole) = update(&desk, &server, "2.0");
    assert!(read * 10 > whole * 9, "all is new: {read} of {whole}");
    update(&desk, &server, "2.1");
    // The last byte of the inode numbers, before what says where they are.
    let record = desk.path("root/.cutover/manifests/2.1.index");
    let mut bytes = fs::read(&record).unwrap();
    let last = bytes.len() - 57;
    bytes[last] ^= 1;
    fs::write(&record, bytes).unwrap();
    let (read, whole) = update(&desk, &server, "2.2");
    assert!(read * 20 <= whole, "2.0 has the same files: {read} of {whole}");
}
