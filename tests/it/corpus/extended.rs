//! Extended headers, in which tars disagree the most.

use std::io::Cursor;

use cutover::release::archive::{self, measure};

use super::build::{Head, Tar, gzip, record, zstd};
use super::{Case, accepted, refused, run, small_limits};

pub fn cases() -> Vec<Case> {
    [known_differences(), broken(), keys(), doubled()].concat()
}

#[test]
fn records_that_tars_read_differently_make_no_difference_here() {
    run(known_differences());
}

#[test]
fn broken_records_are_refused() {
    run(broken());
}

#[test]
fn records_are_honoured_ignored_or_refused_by_their_key() {
    run(keys());
}

/// What an extended header does wrong is told with the name of the entry that it is for, wherever that name stands.
#[test]
fn a_refused_record_is_told_with_the_file_that_it_is_for() {
    let list: (&str, &[u8]) = ("SCHILY.acl.access", b"user:lisa:rwx");
    let hole: [(&str, &[u8]); 4] = [
        ("GNU.sparse.size", b"9"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"0"),
        ("GNU.sparse.offset", b"4"),
    ];
    let map: [(&str, &[u8]); 2] = [("GNU.sparse.map", b"0,1"), ("GNU.sparse.name", b"app")];
    let tar = |records: &[(&str, &[u8])], name: &str| Tar::new().pax(records).file(name, "x").end();
    let cases = [
        (tar(&[list], "app"), "AccessList"),
        (tar(&[list, ("path", b"app")], "short"), "AccessList"),
        (Tar::new().pax(&[list]).long(b'L', "app").file("short", "x").end(), "AccessList"),
        (tar(&[("SCHILY.xattr.security.capability", b"x")], "app"), "Capability"),
        (tar(&[("SCHILY.xattr.trusted.x", b"x")], "app"), "Attribute"),
        (tar(&[("mtime", b"1e9")], "app"), "RecordValue"),
        (tar(&hole, "app"), "SparseKind"),
        (tar(&map, "GNUSparseFile.1/app"), "SparseKind"),
        (Tar::new().pax_raw("9 path=b").file("app", "x").end(), "BrokenRecord"),
    ];
    for (bytes, rule) in cases {
        let error = measure(Cursor::new(bytes), "shop.tar", &small_limits()).unwrap_err();
        let archive::Error::Refused(refusal) = error else { panic!("{error:?}") };
        assert!(format!("{:?}", refusal.rule).starts_with(rule), "{refusal}");
        assert!(refusal.to_string().contains(", `app`: "), "{refusal}");
    }
}

/// What is advised mends what is wrong.
#[test]
fn a_remedy_is_for_what_was_found() {
    let tar = Tar::new;
    let label = tar().head(Head::gnu(b'V', "LABEL").put(124, &[0; 12])).file("a", "x").end();
    let hole: (&str, &[u8]) = ("GNU.sparse.offset", b"0");
    let cases = [
        (label, "--label"),
        (tar().global(&[("GNU.volume.label", b"LABEL")]).file("a", "x").end(), "--label"),
        (tar().head(Head::gnu(b'D', "d/")).file("d/a", "x").end(), "--listed-incremental"),
        (tar().pax(&[("GNU.dumpdir", b"Ya\0\0")]).directory("d").end(), "--listed-incremental"),
        (tar().pax(&[hole, hole]).file("a", "x").end(), "--sparse-version=1.0"),
        (tar().global(&[("mtime", b"1")]).file("a", "x").end(), "KEY:=VALUE"),
        (
            tar().pax(&[("size", b"4096")]).head(Head::new(b'5', "d/").size(4096)).end(),
            "only files have data",
        ),
        (gzip(b""), "was archived"),
        (zstd(b""), "was archived"),
        (tar().pax(&[("SCHILY.acl.access", b"user:lisa:rwx")]).file("a", "x").end(), "bsdtar --no-acls"),
    ];
    for (bytes, words) in cases {
        let error = measure(Cursor::new(bytes), "shop.tar", &small_limits()).unwrap_err();
        let archive::Error::Refused(refusal) = error else { panic!("{error:?}") };
        let remedy = refusal.rule.remedy();
        assert!(remedy.contains(words), "{refusal}: {remedy}");
    }
}

#[test]
fn two_headers_for_one_field_are_refused() {
    run(doubled());
}

/// What other readers are known to take for something else than the rest do.
fn known_differences() -> Vec<Case> {
    let tar = Tar::new;
    let hidden = Tar::new().file("smuggled", "evil").0;
    let newline = tar()
        .pax_raw([record("SCHILY.xattr.user.x", b"a\n13 size=1024\n"), record("size", b"1024")].concat())
        .head(Head::new(b'0', "app/x"))
        .data(&hidden)
        .end();
    vec![
        refused("a newline hides the size", "HeadersDisagree", newline),
        accepted(
            "a newline in an attribute is data",
            &["d app", "f app/x x"],
            tar().pax(&[("SCHILY.xattr.user.x", b"a\n13 size=1024\n")]).file("app/x", "x").end(),
        ),
        accepted(
            "a path inside a comment",
            &["d app", "f app/x x"],
            tar().pax(&[("comment", b"AAAA\n17 path=app/evil")]).file("app/x", "x").end(),
        ),
        accepted(
            "a path with a newline",
            &["d app", "f app/a\\nb x"],
            tar().pax(&[("path", b"app/a\nb")]).file("app/x", "x").end(),
        ),
        refused(
            "path twice",
            "RepeatedRecord",
            tar().pax(&[("path", b"app/one"), ("path", b"app/two")]).file("a", "x").end(),
        ),
        refused(
            "x then L",
            "HeadersDisagree",
            tar().pax(&[("path", b"app/one")]).long(b'L', "app/two").file("a", "x").end(),
        ),
        refused(
            "L then x",
            "HeadersDisagree",
            tar().long(b'L', "app/two").pax(&[("path", b"app/one")]).file("a", "x").end(),
        ),
        refused("global path", "GlobalRecord", tar().global(&[("path", b"app/evil")]).file("a", "x").end()),
        refused(
            "global attribute",
            "GlobalRecord",
            tar().global(&[("SCHILY.xattr.user.a", b"b")]).file("a", "x").end(),
        ),
        accepted(
            "global records about the writer, as star and others write them",
            &["f a x"],
            tar().global(&[("SCHILY.archtype", b"exustar"), ("ACME.build", b"7")]).file("a", "x").end(),
        ),
        refused("global size", "GlobalRecord", tar().global(&[("size", b"1")]).file("a", "x").end()),
        refused("global owner", "GlobalRecord", tar().global(&[("uid", b"0")]).file("a", "x").end()),
        refused(
            "global link",
            "GlobalRecord",
            tar().global(&[("linkpath", b"/etc/passwd")]).link("a", "x").end(),
        ),
        refused(
            "holes of version 0.0",
            "SparseKind",
            tar()
                .pax(&[
                    ("GNU.sparse.size", b"9"),
                    ("GNU.sparse.numblocks", b"1"),
                    ("GNU.sparse.offset", b"0"),
                    ("GNU.sparse.numbytes", b"1"),
                ])
                .file("a", "x")
                .end(),
        ),
        refused(
            "holes of version 0.1",
            "SparseKind",
            tar()
                .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9"), ("GNU.sparse.name", b"b")])
                .file("a", "x")
                .end(),
        ),
        refused(
            "size disagrees, larger",
            "HeadersDisagree",
            tar().pax(&[("size", b"1024")]).file("a", "x").data([0; 512]).end(),
        ),
        refused(
            "size disagrees, smaller",
            "HeadersDisagree",
            tar().pax(&[("size", b"0")]).file("a", "x").end(),
        ),
        refused(
            "size disagrees with none",
            "HeadersDisagree",
            tar().pax(&[("size", b"512")]).file("a", "").data([b'x'; 512]).end(),
        ),
        accepted("size agrees", &["f a x"], tar().pax(&[("size", b"1")]).file("a", "x").end()),
        refused(
            "size of 9 GB where the header has none",
            "TooManyBytes",
            tar().pax(&[("size", b"9000000000")]).file("a", "").end(),
        ),
        refused(
            "size for a directory",
            "HeadersDisagree",
            tar().pax(&[("size", b"512")]).directory("a").data([b'x'; 512]).end(),
        ),
        refused(
            "huge size for a link",
            "DataWithoutFile",
            tar().pax(&[("size", b"9000000000")]).link("a", "b").end(),
        ),
    ]
}

fn broken() -> Vec<Case> {
    let raw = |bytes: &str| Tar::new().pax_raw(bytes).file("a", "x").end();
    vec![
        refused("longer than the header", "BrokenRecord", raw("99 path=b\n")),
        refused("shorter than itself", "BrokenRecord", raw("8 path=b\n")),
        refused("no newline", "BrokenRecord", raw("10 path=bc")),
        refused("no equals sign", "BrokenRecord", raw("7 path\n")),
        refused("no key", "BrokenRecord", raw("5 =b\n")),
        refused("no length", "BrokenRecord", raw(" path=b\n")),
        refused("length with a zero in front", "BrokenRecord", raw("010 path=b\n")),
        refused("length with a sign", "BrokenRecord", raw("+9 path=b\n")),
        refused("length of nothing", "BrokenRecord", raw("0 path=b\n")),
        refused("length of twenty digits", "BrokenRecord", raw("18446744073709551616 path=b\n")),
        refused("length in hex", "BrokenRecord", raw("0x9 path=b\n")),
        refused("NUL in a key", "BrokenRecord", raw("11 pa\0th=b\n")),
        refused("NULs after the records", "BrokenRecord", raw("9 path=b\n\0\0\0")),
        refused("good, then broken", "BrokenRecord", raw("9 path=b\n9 path=c")),
        refused("empty path", "RecordValue", raw("8 path=\n")),
        refused("empty size", "RecordValue", raw("8 size=\n")),
        refused("size of hex", "RecordValue", raw("12 size=0x1\n")),
        refused("size with a sign", "RecordValue", raw("11 size=-1\n")),
        refused("size beyond 63 bits", "RecordValue", raw("28 size=9223372036854775808\n")),
        refused("size beyond 64 bits", "RecordValue", raw("29 size=18446744073709551617\n")),
        refused("owner of letters", "RecordValue", raw("12 uid=root\n")),
        refused("owner beyond 32 bits", "Owner", raw("18 uid=4294967296\n")),
        refused("group that means none", "Owner", raw("18 gid=4294967295\n")),
        refused("time of an exponent", "RecordValue", raw("13 mtime=1e9\n")),
        refused("time that is none", "RecordValue", raw("13 mtime=nan\n")),
        refused("time beyond file systems", "Time", raw("21 mtime=99999999999\n")),
        accepted("empty header", &["f a x"], raw("")),
    ]
}

fn keys() -> Vec<Case> {
    let with = |key: &str, value: &[u8]| Tar::new().pax(&[(key, value)]).file("a", "x").end();
    let fine: &[&str] = &["f a x"];
    let twins = Tar::new()
        .pax(&[("LIBARCHIVE.xattr.user.x", b"eA=="), ("SCHILY.xattr.user.x", b"x")])
        .file("a", "x")
        .end();
    vec![
        accepted("comment", fine, with("comment", b"hello")),
        accepted("times of reading and change", fine, with("atime", b"1.5")),
        accepted("names of owners", fine, with("uname", b"root")),
        accepted("unknown", fine, with("ACME.colour", b"red")),
        accepted("unknown and empty", fine, with("ACME.colour", b"")),
        accepted("character set of names", fine, with("hdrcharset", b"BINARY")),
        refused("another character set", "RecordValue", with("hdrcharset", b"ISO-IR 8859 1 1998")),
        accepted("SELinux label", fine, with("RHT.security.selinux", b"system_u:object_r:shadow_t:s0\0")),
        accepted("SELinux label as an attribute", fine, with("SCHILY.xattr.security.selinux", b"x\0")),
        accepted(
            "access list of the mode alone",
            fine,
            with("SCHILY.acl.access", b"user::rw-,group::r--,other::r--"),
        ),
        refused(
            "access list of another mode",
            "AccessList",
            with("SCHILY.acl.access", b"user::rwx,group::r--,other::r--"),
        ),
        refused(
            "access list",
            "AccessList",
            with("SCHILY.acl.access", b"user::rw-,user:lisa:rw-:1000,group::r--,mask::rw-,other::r--"),
        ),
        refused(
            "access list of what will be made",
            "AccessList",
            with("SCHILY.acl.default", b"user::rwx,group::r-x,other::r-x"),
        ),
        accepted("no access list of what will be made", fine, with("SCHILY.acl.default", b"")),
        accepted(
            "access list of macOS",
            fine,
            with("SCHILY.acl.ace", b"group:everyone@:-------d------:-------:deny:0"),
        ),
        refused(
            "access list as an attribute",
            "AccessList",
            with("SCHILY.xattr.system.posix_acl_access", b"x"),
        ),
        refused(
            "capability",
            "Capability",
            with("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ),
        refused("IMA", "Attribute", with("SCHILY.xattr.security.ima", b"x")),
        refused("trusted attribute", "Attribute", with("SCHILY.xattr.trusted.overlay.opaque", b"y")),
        accepted("attribute without a class", &["f a x"], with("SCHILY.xattr.colour", b"red")),
        accepted("macOS' attribute", &["f a x"], with("SCHILY.xattr.com.apple.provenance", b"x")),
        accepted(
            "macOS' attribute of libarchive",
            &["f a x"],
            with("LIBARCHIVE.xattr.com.apple.provenance", b"eA"),
        ),
        refused("attribute without a name", "Attribute", with("SCHILY.xattr.user.", b"red")),
        refused(
            "attribute with a long name",
            "Attribute",
            with(&format!("SCHILY.xattr.user.{}", "n".repeat(251)), b""),
        ),
        refused("attribute that is too large", "Attribute", with("SCHILY.xattr.user.x", &[b'x'; 65_537])),
        refused(
            "attribute of a link",
            "Attribute",
            Tar::new().pax(&[("SCHILY.xattr.user.x", b"y")]).link("a", "b").end(),
        ),
        refused("libarchive's attribute alone", "Record", with("LIBARCHIVE.xattr.user.x", b"eA==")),
        accepted("libarchive's attribute with its twin", fine, twins),
        refused("GNU directory dump", "Record", with("GNU.dumpdir", b"Yb\0\0")),
        refused("star's size with holes", "SparseKind", with("SCHILY.realsize", b"99")),
        accepted(
            "global comment, as git writes it",
            fine,
            Tar::new()
                .global(&[("comment", b"da39a3ee5e6b4b0d3255bfef95601890afd80709")])
                .file("a", "x")
                .end(),
        ),
    ]
}

fn doubled() -> Vec<Case> {
    let tar = Tar::new;
    vec![
        refused(
            "two extended headers",
            "HeadersDisagree",
            tar().pax(&[("path", b"b")]).pax(&[("uid", b"1")]).file("a", "x").end(),
        ),
        refused(
            "two long names",
            "HeadersDisagree",
            tar().long(b'L', "b").long(b'L', "c").file("a", "x").end(),
        ),
        refused(
            "two long targets",
            "HeadersDisagree",
            tar().long(b'K', "b").long(b'K', "c").link("a", "x").end(),
        ),
        refused(
            "long and extended target",
            "HeadersDisagree",
            tar().long(b'K', "b").pax(&[("linkpath", b"c")]).link("a", "x").end(),
        ),
        refused(
            "long name and name of a sparse file",
            "HeadersDisagree",
            tar()
                .long(b'L', "b")
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"c"),
                    ("GNU.sparse.realsize", b"1"),
                ])
                .file("a", "0\n")
                .end(),
        ),
        refused(
            "extended header, then the end",
            "DanglingHeader",
            tar().file("a", "x").pax(&[("path", b"b")]).end(),
        ),
        refused(
            "extended header, then nothing",
            "DanglingHeader",
            tar().file("a", "x").pax(&[("path", b"b")]).0,
        ),
        refused("long name, then the end", "DanglingHeader", tar().file("a", "x").long(b'L', "b").end()),
        refused("empty long name", "EmptyName", tar().entry(Head::gnu(b'L', "l"), "\0").file("a", "x").end()),
        refused("long name without data", "EmptyName", tar().head(Head::gnu(b'L', "l")).file("a", "x").end()),
        accepted(
            "long name and long target",
            &["f a x", "l b t"],
            tar().file("a", "x").long(b'K', "t").long(b'L', "b").link("?", "?").end(),
        ),
        accepted(
            "long name and a time",
            &["f b x"],
            tar().pax(&[("mtime", b"1.5")]).long(b'L', "b").file("a", "x").end(),
        ),
        accepted(
            "global between extended and entry",
            &["f b x"],
            tar().pax(&[("path", b"b")]).global(&[("comment", b"c")]).file("a", "x").end(),
        ),
    ]
}
