//! Where an archive ends: within the tar, within the compression, and after both.

use super::build::{Tar, gzip, skippable, zstd, zstd_stored};
use super::{Case, accepted, refused, run};

pub fn cases() -> Vec<Case> {
    [tar_ends(), zstd_ends(), gzip_ends()].concat()
}

#[test]
fn an_archive_is_read_to_its_very_end() {
    run(tar_ends());
}

#[test]
fn zstd_is_read_to_its_very_end() {
    run(zstd_ends());
}

#[test]
fn gzip_is_read_to_its_very_end() {
    run(gzip_ends());
}

fn good() -> Vec<u8> {
    Tar::new().file("a", "x").end()
}

fn cut(mut bytes: Vec<u8>, by: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - by);
    bytes
}

fn flipped(mut bytes: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    bytes
}

fn tar_ends() -> Vec<Case> {
    let body = || Tar::new().file("a", "x");
    let evil = || Tar::new().file("evil", "x").end();
    vec![
        accepted("two blocks of zeros", &["f a x"], good()),
        accepted("one block of zeros at the end of the file", &["f a x"], body().raw([0; 512]).0),
        accepted("a record of zeros", &["f a x"], body().raw([0; 10_240]).0),
        accepted("zeros that fill no block", &["f a x"], body().raw([0; 1500]).0),
        refused("no end mark", "NoEndMark", body().0),
        refused("half an end mark", "Truncated", body().raw([0; 100]).0),
        accepted("an end mark and a half", &["f a x"], body().raw([0; 700]).0),
        refused("one block of zeros and an entry", "DataAfterEnd", body().raw([0; 512]).raw(evil()).0),
        refused("a second archive", "DataAfterEnd", body().raw([0; 1024]).raw(evil()).0),
        refused("a second archive far behind", "DataAfterEnd", body().raw(vec![0; 100 << 10]).raw(evil()).0),
        refused("garbage behind", "DataAfterEnd", body().raw([0; 1024]).raw("garbage").0),
        refused("one bit behind", "DataAfterEnd", flipped(body().raw([0; 10_240]).0, 1)),
        refused("cut in a header", "Truncated", body().raw(&Tar::new().file("b", "x").0[..100]).0),
        refused("cut in the data", "Truncated", cut(Tar::new().file("a", [b'x'; 1000]).0, 100)),
        refused("cut in the padding", "Truncated", cut(Tar::new().file("a", [b'x'; 1000]).0, 10)),
        refused("cut after a header", "Truncated", body().raw(&Tar::new().file("b", "x").0[..512]).0),
        refused("only an end mark", "Empty", Tar::new().end()),
        refused("only comments", "Empty", Tar::new().global(&[("comment", b"c")]).end()),
    ]
}

fn zstd_ends() -> Vec<Case> {
    let frame = zstd(&good());
    let (start, end) = (zstd(&good()[..700]), zstd(&good()[700..]));
    let with = |bytes: &[u8]| [&frame, bytes].concat();
    let stored = |descriptor, after: &[u8]| zstd_stored(descriptor, after, &good());
    vec![
        accepted("a frame", &["f a x"], frame.clone()),
        accepted("two frames", &["f a x"], [start.clone(), end.clone()].concat()),
        accepted(
            "frames between skippable ones",
            &["f a x"],
            [skippable(b"a"), start.clone(), skippable(b""), end, skippable(b"index")].concat(),
        ),
        accepted("a frame without checksum and size", &["f a x"], stored(0, &[24])),
        refused(
            "a second frame with another archive",
            "DataAfterEnd",
            with(&zstd(&Tar::new().file("evil", "x").end())),
        ),
        refused("only skippable frames", "Empty", [skippable(b"a"), skippable(&good())].concat()),
        refused("cut between frames", "Truncated", start),
        refused("cut in a frame", "BrokenCompression", cut(frame.clone(), 10)),
        refused("cut in the checksum", "BrokenCompression", cut(frame.clone(), 1)),
        refused("wrong checksum", "BrokenCompression", flipped(frame.clone(), 1)),
        refused("garbage behind", "BrokenCompression", with(b"garbage")),
        refused("zeros behind", "BrokenCompression", with(&[0; 512])),
        refused("a bare archive behind", "BrokenCompression", with(&good())),
        refused("gzip behind", "BrokenCompression", with(&gzip(&good()))),
        refused("cut skippable frame behind", "BrokenCompression", with(&cut(skippable(b"index"), 2))),
        refused("half a magic behind", "BrokenCompression", with(&[0x28, 0xb5])),
        refused(
            "a frame of an old version behind",
            "BrokenCompression",
            with(b"\x27\xb5\x2f\xfd\x24\x01\x05\x00\x00"),
        ),
        refused("an old version", "UnknownFormat", b"\x27\xb5\x2f\xfd\x24\x01\x05\x00\x00".repeat(80)),
        refused("a dictionary", "Dictionary", stored(1, &[24, 7])),
        refused("a reserved bit", "BrokenCompression", stored(8, &[24])),
        refused("wrong size of the content", "BrokenCompression", stored(0x60, &[0xff, 0xff])),
        refused("zstd in zstd", "CompressedTwice", zstd(&frame)),
        refused("gzip in zstd", "CompressedTwice", zstd(&gzip(&good()))),
        refused("an archive that is cut inside a whole frame", "NoEndMark", zstd(&good()[..1024])),
    ]
}

fn gzip_ends() -> Vec<Case> {
    let member = gzip(&good());
    let with = |bytes: &[u8]| [&member, bytes].concat();
    vec![
        accepted("a member", &["f a x"], member.clone()),
        accepted("two members", &["f a x"], [gzip(&good()[..700]), gzip(&good()[700..])].concat()),
        refused(
            "a second member with another archive",
            "DataAfterEnd",
            with(&gzip(&Tar::new().file("evil", "x").end())),
        ),
        refused("cut between members", "Truncated", gzip(&good()[..700])),
        refused("cut in a member", "BrokenCompression", cut(member.clone(), 12)),
        refused("cut in the checksum", "BrokenCompression", cut(member.clone(), 5)),
        refused("cut in the size", "BrokenCompression", cut(member.clone(), 1)),
        refused("wrong checksum", "BrokenCompression", flipped(member.clone(), 8)),
        refused("wrong size", "BrokenCompression", flipped(member.clone(), 1)),
        refused("garbage behind", "BrokenCompression", with(b"garbage")),
        // As `gzip` has it; a record of a tape, and more than is read at once.
        accepted("a zero behind", &["f a x"], with(&[0])),
        accepted("zeros behind", &["f a x"], with(&[0; 512])),
        accepted("many zeros behind", &["f a x"], with(&vec![0; 3 << 20])),
        accepted(
            "zeros behind two members",
            &["f a x"],
            [gzip(&good()[..700]), gzip(&good()[700..]), vec![0; 100]].concat(),
        ),
        refused("zeros and garbage behind", "BrokenCompression", with(&[&[0; 512][..], b"garbage"].concat())),
        refused("zeros and a member behind", "BrokenCompression", with(&[&[0; 512][..], &member].concat())),
        refused(
            "zeros between members",
            "BrokenCompression",
            [gzip(&good()[..700]), vec![0; 9], gzip(&good()[700..])].concat(),
        ),
        refused("a bare archive behind", "BrokenCompression", with(&good())),
        refused("half a magic behind", "BrokenCompression", with(&[0x1f])),
        refused("only a header", "BrokenCompression", member[..10].to_vec()),
        refused("gzip in gzip", "CompressedTwice", gzip(&member)),
    ]
}
