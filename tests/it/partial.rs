//! What an update reads of an archive follows what has changed, within large files, too.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::plan::{noise, served};
use crate::refusals::Desk;
use crate::web::Asked;

const MIB: usize = 1 << 20;

/// Packs the next release, updates the node, and says how much of the archive was read, and how many bytes it has.
fn update(desk: &Desk, server: &crate::web::Server, version: &str) -> (usize, usize) {
    desk.release(version);
    let before = server.asked().len();
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, version), "{said}");
    for name in ["large", "moved"] {
        let (new, old) = (desk.path("app").join(name), desk.path("root/current").join(name));
        assert!(fs::read(new).ok() == fs::read(old).ok(), "{version}: {name}");
    }
    let size = fs::metadata(desk.source(&format!("shop-{version}.tar.zst"))).unwrap().len();
    let asked = server.asked();
    let ranges = asked[before..].iter().filter(|asked| asked.path.ends_with(".zst")).filter_map(Asked::range);
    (ranges.map(|(first, last)| last + 1 - first).sum(), usize::try_from(size).unwrap())
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
