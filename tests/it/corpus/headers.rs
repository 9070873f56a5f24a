//! Header blocks: checksums, magics, numbers, types.

use super::build::{Head, Tar};
use super::{Case, accepted, refused, run};

pub fn cases() -> Vec<Case> {
    [broken(), numbers(), types()].concat()
}

#[test]
fn broken_headers_are_refused() {
    run(broken());
}

#[test]
fn numbers_are_read_strictly() {
    run(numbers());
}

#[test]
fn only_files_directories_and_links_are_accepted() {
    run(types());
}

/// A good entry, so that the archive is recognised, and then a raw header.
fn second(head: Head) -> Vec<u8> {
    Tar::new().file("first", "").raw(head.0).end()
}

fn broken() -> Vec<Case> {
    let head = || Head::new(b'0', "a");
    let signed = Head::new(b'0', "é").sealed();
    let signed_sum: i32 =
        Head::new(b'0', "é").put(148, b"        ").0.iter().map(|byte| i32::from(*byte as i8)).sum();
    vec![
        refused("wrong checksum", "Checksum", second(head().sealed().put(0, b"b"))),
        refused("no checksum", "Checksum", second(head())),
        refused("empty checksum", "Checksum", second(head().put(148, b"        "))),
        accepted(
            "signed checksum, as of old",
            &["f first", "f é"],
            second(signed.put(148, format!("{signed_sum:06o}\0 ").as_bytes())),
        ),
        refused("checksum with a sign", "Checksum", second(head().sealed().put(148, b"+"))),
        refused("first header broken", "Checksum", Tar::new().raw(head().sealed().put(0, b"b").0).end()),
        refused("no tar at all", "UnknownFormat", b"#!/bin/sh\nexec rm -rf /\n".repeat(100)),
        refused("empty file", "Empty", Vec::new()),
        refused(
            "label",
            "EntryType",
            Tar::new().head(Head::gnu(b'V', "L").put(124, &[0; 12]).sealed()).end(),
        ),
        refused("one byte", "UnknownFormat", vec![0]),
        refused("page of an error", "Page", b"<!DOCTYPE html><html>404</html>".to_vec()),
        refused("pointer of Git LFS", "Pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
        refused("lz4", "UnreadCompression", b"\x04\x22\x4d\x18".repeat(200)),
        refused("xz", "UnreadCompression", b"\xfd7zXZ\0\0\x04".repeat(100)),
        refused("bzip2", "UnreadCompression", b"BZh91AY&SY".repeat(100)),
        refused("zip", "UnreadCompression", b"PK\x03\x04\x14\0\0\0".repeat(100)),
        refused(
            "unknown magic",
            "Magic",
            Tar::new().file("first", "").head(head().put(257, b"nstar\x0000")).end(),
        ),
        refused(
            "unknown version",
            "Magic",
            Tar::new().file("first", "").head(head().put(257, b"ustar\x0001")).end(),
        ),
        accepted(
            "no version",
            &["f a", "f first"],
            Tar::new().file("first", "").head(head().put(257, b"ustar\0\0\0")).end(),
        ),
        accepted(
            "blanks for a version",
            &["f a", "f first"],
            Tar::new().file("first", "").head(head().put(257, b"ustar\0  ")).end(),
        ),
        refused(
            "a prefix without a magic",
            "Magic",
            Tar::new().file("first", "").head(Head::v7(b'0', "a").put(345, b"b")).end(),
        ),
        accepted("without a magic", &["f a x"], Tar::new().entry(Head::v7(b'0', "a"), "x").end()),
        accepted(
            "directory by its slash, of old",
            &["d a", "f a/b x"],
            Tar::new().head(Head::v7(0, "a/").mode(0o755)).entry(Head::v7(0, "a/b"), "x").end(),
        ),
        accepted(
            "directory by its slash, of today",
            &["d a", "f a/b x"],
            Tar::new().head(Head::new(0, "a/").mode(0o755)).entry(Head::new(0, "a/b"), "x").end(),
        ),
        refused(
            "directory by its slash, in a long name only",
            "SlashAfterFile",
            Tar::new().long(b'L', "a/").head(Head::gnu(0, "a")).end(),
        ),
        accepted("a prefix", &["d b", "f b/a x"], Tar::new().entry(head().put(345, b"b"), "x").end()),
        accepted(
            "GNU has no prefix",
            &["f a x"],
            Tar::new().entry(Head::gnu(b'0', "a").put(345, b"00000000000\0"), "x").end(),
        ),
        accepted(
            "a name that fills its field",
            &[&format!("f {} x", "n".repeat(100))],
            Tar::new().file("n".repeat(100), "x").end(),
        ),
    ]
}

fn numbers() -> Vec<Case> {
    let with = |at: usize, bytes: &[u8]| {
        Tar::new().file("first", "").head(Head::new(b'0', "a").put(at, bytes)).end()
    };
    let huge = |first: u8| [&[first, 0, 0, 0], 0x7fff_ffff_ffff_ffff_u64.to_be_bytes().as_slice()].concat();
    vec![
        refused("size with a sign", "Number", with(124, b"+0000000000\0")),
        refused("size below zero", "Number", with(124, b"-0000000001\0")),
        refused("size not octal", "Number", with(124, b"00000000009\0")),
        refused("size in hex", "Number", with(124, b"0x000000010\0")),
        accepted("size empty", &["f a", "f first"], with(124, &[0; 12])),
        accepted("size of spaces", &["f a", "f first"], with(124, &[b' '; 12])),
        refused("size with something after it", "Number", with(124, b"00000\x00000001")),
        refused("size of a letter after it", "Number", with(124, b"0000000000 x")),
        refused("size in binary below zero", "Number", with(124, &[0xff; 12])),
        refused("size in binary beyond 63 bits", "Number", with(124, b"\x80\0\0\0\x80\0\0\0\0\0\0\0")),
        refused("size in binary beyond 64 bits", "Number", with(124, b"\x80\0\0\x01\0\0\0\0\0\0\x02\0")),
        refused("size of 8 EiB", "TooManyBytes", with(124, &huge(0x80))),
        refused("size of a file that is not there", "Truncated", with(124, b"00000004000\0")),
        refused("mode not octal", "Number", with(100, b"rw-r--r-")),
        accepted("mode empty", &["f a", "f first"], with(100, &[0; 8])),
        refused("owner not octal", "Number", with(108, b"root\0\0\0\0")),
        refused("owner that means none", "Owner", with(108, b"\x80\0\0\0\xff\xff\xff\xff")),
        refused("owner beyond 32 bits", "Owner", with(108, b"\x80\0\0\x01\0\0\0\0")),
        refused("group that means none", "Owner", with(116, b"\x80\0\0\0\xff\xff\xff\xff")),
        refused("group below zero", "Number", with(116, &[0xff; 8])),
        refused("time not octal", "Number", with(136, b"yesterday\0\0\0")),
        refused("time beyond file systems", "Time", with(136, b"777777777777")),
        refused("time of 292 billion years", "Time", with(136, &huge(0x80))),
        accepted("time before 1970", &["f a", "f first"], with(136, &[0xff; 12])),
        accepted("numbers with spaces", &["f a", "f first"], with(124, b"          0 ")),
        accepted("a size that fills its field", &["f a", "f first"], with(124, b"000000000000")),
        accepted("owner and time left out, as npm does", &["f a", "f first"], with(108, &[0; 16])),
        accepted("mode with file type bits", &["f a", "f first"], with(100, b"0100644\0")),
        accepted("devices of a file are ignored", &["f a", "f first"], with(329, b"garbage\0garbage\0")),
    ]
}

fn types() -> Vec<Case> {
    let of = |kind: u8| Tar::new().file("first", "").head(Head::new(kind, "a")).end();
    let gnu = |kind: u8| Tar::new().file("first", "").head(Head::gnu(kind, "a")).end();
    vec![
        refused("character device", "SpecialFile", of(b'3')),
        refused("block device", "SpecialFile", of(b'4')),
        refused("fifo", "SpecialFile", of(b'6')),
        accepted("contiguous file", &["f a", "f first"], of(b'7')),
        refused("vendor's type", "EntryType", of(b'A')),
        refused("Solaris' extended header", "EntryType", of(b'X')),
        refused("GNU directory dump", "EntryType", gnu(b'D')),
        refused("GNU part of a volume", "EntryType", gnu(b'M')),
        refused("GNU label of a volume", "EntryType", gnu(b'V')),
        refused("GNU names of old", "EntryType", gnu(b'N')),
        refused("type of a control character", "EntryType", of(0x1b)),
        refused("type beyond ASCII", "EntryType", of(0xff)),
        refused("old holes in a POSIX header", "EntryType", of(b'S')),
        refused(
            "extended header in an old one",
            "EntryType",
            Tar::new().entry(Head::v7(b'x', "p"), "9 path=b\n").file("a", "").end(),
        ),
        refused(
            "long name in an old header",
            "EntryType",
            Tar::new().entry(Head::v7(b'L', "p"), "b\0").file("a", "").end(),
        ),
        accepted("file of type NUL", &["f a x"], Tar::new().entry(Head::new(0, "a"), "x").end()),
    ]
}
