//! Archives that are larger than they look.

use super::build::{Head, Tar, gzip, zstd, zstd_stored};
use super::{Case, accepted, refused, run};

pub fn cases() -> Vec<Case> {
    bombs()
}

#[test]
fn limits_hold_before_anything_is_written() {
    run(bombs());
}

fn bombs() -> Vec<Case> {
    let zeros = |size: usize| Tar::new().file("a", vec![0; size]).end();
    let tebibyte = Tar::new().head(Head::new(b'0', "a").put(124, b"\x80\0\0\0\0\0\x01\0\0\0\0\0"));
    let many = |count: u32| (0..count).fold(Tar::new(), |tar, at| tar.file(format!("{at}"), "")).end();
    let roots = (0..3001).fold(Tar::new(), |tar, _| tar.directory("./")).end();
    let directories = (0..3010).fold(Tar::new(), |tar, _| tar.directory("a")).end();
    let implied = (0..4)
        .fold(Tar::new(), |tar, at| tar.long(b'L', format!("{at}/{}", "a/".repeat(1000))).directory("x"))
        .end();
    let comments = (0..1025).fold(Tar::new(), |tar, _| tar.global(&[("comment", b"c")])).file("a", "").end();
    let long =
        |kind: u8, size: u64| Tar::new().head(Head::gnu(kind, "l").size(size)).raw(vec![b'a'; 4096]).end();
    let bomb = zstd(&zeros(65 << 20));
    assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
    vec![
        refused("65 MiB of zeros in zstd", "TooManyBytes", bomb),
        refused("65 MiB of zeros in gzip", "TooManyBytes", gzip(&zeros(65 << 20))),
        refused("a size of 1 TiB", "TooManyBytes", tebibyte.end()),
        refused(
            "many files that are too large together",
            "TooManyBytes",
            Tar::new().file("a", vec![0; 40 << 20]).file("b", vec![0; 40 << 20]).end(),
        ),
        refused("too many files", "TooManyEntries", many(3001)),
        refused("too many roots", "TooManyEntries", roots),
        refused("too many repeated directories", "TooManyEntries", directories),
        refused("too many implied directories", "TooManyEntries", implied),
        refused("too many comments", "ExtendedTooMany", comments),
        refused("long name of 1 GiB", "ExtendedTooLong", long(b'L', 1 << 30)),
        refused("long target of 1 GiB", "ExtendedTooLong", long(b'K', 1 << 30)),
        refused("extended header of 1 GiB", "ExtendedTooLong", long(b'x', 1 << 30)),
        refused("global header of 1 GiB", "ExtendedTooLong", long(b'g', 1 << 30)),
        refused("extended header of 1 MiB and a byte", "ExtendedTooLong", long(b'x', (1 << 20) + 1)),
        refused("long name cut off", "Truncated", long(b'L', 1 << 20)),
        refused(
            "65 MiB of zeros after the end",
            "DataAfterEnd",
            zstd(&Tar::new().file("a", "").raw(vec![0; 66 << 20]).0),
        ),
        accepted("a MiB of zeros after the end", &["f a"], Tar::new().file("a", "").raw(vec![0; 1 << 20]).0),
        accepted(
            "a window of 128 MiB",
            &["f a x"],
            zstd_stored(0, &[17 << 3], &Tar::new().file("a", "x").end()),
        ),
        refused(
            "a window of 256 MiB",
            "Window",
            zstd_stored(0, &[18 << 3], &Tar::new().file("a", "x").end()),
        ),
        refused("a window of 3.75 TiB", "Window", zstd_stored(0, &[0xff], &Tar::new().file("a", "x").end())),
    ]
}
