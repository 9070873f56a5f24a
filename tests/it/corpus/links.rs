//! Links, and writing through them.

use super::build::{Head, Tar};
use super::{Case, accepted, refused, run};

pub fn cases() -> Vec<Case> {
    [symbolic(), hard()].concat()
}

#[test]
fn nothing_is_written_through_a_link() {
    run(symbolic());
}

#[test]
fn hard_links_lead_to_files_of_this_archive_only() {
    run(hard());
}

fn symbolic() -> Vec<Case> {
    let tar = Tar::new;
    let chain = (0..60).fold(tar(), |tar, at| tar.link(format!("l{at}"), format!("l{}", at + 1)));
    vec![
        refused(
            "through a link out",
            "ThroughNonDirectory",
            tar().link("a", "../../outside").file("a/canary", "x").end(),
        ),
        refused(
            "through an absolute link",
            "ThroughNonDirectory",
            tar().link("a", "/tmp").file("a/canary", "x").end(),
        ),
        refused(
            "through a link inside",
            "ThroughNonDirectory",
            tar().directory("d").link("a", "d").file("a/x", "x").end(),
        ),
        refused(
            "through a link to the root",
            "ThroughNonDirectory",
            tar().link("a", ".").file("a/x", "x").end(),
        ),
        refused(
            "through a link, deep",
            "ThroughNonDirectory",
            tar().link("a/b/c", "../../..").file("a/b/c/d/e", "x").end(),
        ),
        refused(
            "through two links",
            "ThroughNonDirectory",
            tar().link("a", "b").link("b", "../../outside").file("a/x", "x").end(),
        ),
        refused(
            "through a chain of links",
            "ThroughNonDirectory",
            chain.link("l60", "../../outside").file("l0/x", "x").end(),
        ),
        refused(
            "directory through a link",
            "ThroughNonDirectory",
            tar().link("a", "../../outside").directory("a/new").end(),
        ),
        refused(
            "link through a link",
            "ThroughNonDirectory",
            tar().link("a", "../../outside").link("a/new", "x").end(),
        ),
        refused(
            "hard link through a link",
            "ThroughNonDirectory",
            tar().file("f", "x").link("a", "../../outside").hard("a/new", "f").end(),
        ),
        refused("through a file", "ThroughNonDirectory", tar().file("a", "x").file("a/b", "x").end()),
        refused(
            "through a hard link",
            "ThroughNonDirectory",
            tar().file("a", "x").hard("b", "a").file("b/c", "x").end(),
        ),
        refused(
            "through a link by another spelling",
            "ThroughNonDirectory",
            tar().link("a", "../../outside").file("./a/./x", "x").end(),
        ),
        refused(
            "through a link to /proc",
            "ThroughNonDirectory",
            tar().link("a", "/proc/self/root/tmp").file("a/x", "x").end(),
        ),
        refused("empty target", "LinkTarget", tar().head(Head::new(b'2', "a")).end()),
        refused("target too long", "LinkTarget", tar().long(b'K', "t".repeat(4096)).link("a", "t").end()),
        refused(
            "NUL in an extended target",
            "RecordValue",
            tar().pax(&[("linkpath", b"a\0b")]).link("a", "t").end(),
        ),
        refused("NUL in a long target", "LinkTarget", tar().long(b'K', "a\0b").link("a", "t").end()),
        refused("data behind a link", "Checksum", tar().entry(Head::new(b'2', "a").link("b"), "x").end()),
        refused("data behind a directory", "Checksum", tar().entry(Head::new(b'5', "a"), "x").end()),
        accepted(
            "sizes of what has no data, as some writers fill them in",
            &["d d", "f d/a x", "h h d/a", "l l d"],
            tar()
                .head(Head::new(b'5', "d").mode(0o755).size(4096))
                .file("d/a", "x")
                .head(Head::new(b'1', "h").link("d/a").size(1))
                .head(Head::new(b'2', "l").link("d").size(1))
                .end(),
        ),
        refused(
            "a hard link that may have data",
            "DataWithoutFile",
            tar().pax(&[("mtime", b"1")]).file("a", "x").head(Head::new(b'1', "h").link("a").size(1)).end(),
        ),
        accepted(
            "links may point anywhere",
            &["l a /etc/passwd", "l b ../../canary", "l c c", "l d a/../.."],
            tar()
                .link("a", "/etc/passwd")
                .link("b", "../../canary")
                .link("c", "c")
                .link("d", "a/../..")
                .end(),
        ),
        accepted("a target is kept byte for byte", &["l a .//b/./\\n"], tar().link("a", ".//b/./\n").end()),
        refused("a target for a file", "HeadersDisagree", tar().long(b'K', "t").file("a", "x").end()),
        refused(
            "an extended target for a file",
            "HeadersDisagree",
            tar().pax(&[("linkpath", b"t")]).file("a", "x").end(),
        ),
    ]
}

fn hard() -> Vec<Case> {
    let tar = Tar::new;
    vec![
        refused("out by a parent", "HardLinkTarget", tar().hard("a", "../canary").end()),
        refused("out by an absolute name", "HardLinkTarget", tar().hard("a", "/etc/passwd").end()),
        refused(
            "out by a link",
            "HardLinkTarget",
            tar().link("l", "../../outside").hard("a", "l/canary").end(),
        ),
        accepted(
            "to a link",
            &["l a ../../canary", "f b x", "l l ../../canary"],
            tar().link("l", "../../canary").hard("a", "l").file("b", "x").end(),
        ),
        refused("to a directory", "HardLinkTarget", tar().directory("d").hard("a", "d").end()),
        refused("to the root", "HardLinkTarget", tar().hard("a", ".").end()),
        refused("to nothing", "HardLinkTarget", tar().head(Head::new(b'1', "a")).end()),
        refused("to what is not there", "HardLinkTarget", tar().file("b", "x").hard("a", "c").end()),
        refused("to what comes later", "HardLinkTarget", tar().hard("a", "b").file("b", "x").end()),
        refused("with a slash", "HardLinkTarget", tar().file("b", "x").hard("a", "b/").end()),
        refused(
            "with data",
            "Checksum",
            tar().file("b", "x").entry(Head::new(b'1', "a").link("b"), "y").end(),
        ),
        refused(
            "out by an extended target",
            "HardLinkTarget",
            tar().file("b", "x").pax(&[("linkpath", b"../canary")]).hard("a", "b").end(),
        ),
        accepted("to a file", &["f a x", "h b a"], tar().file("b", "x").hard("a", "./b").end()),
        accepted(
            "to a hard link",
            &["f a x", "h b a", "d c", "h c/d a"],
            tar().file("a", "x").hard("b", "a").hard("c/d", "b").end(),
        ),
        accepted(
            "to a file by a long target",
            &["f a x", "h b a"],
            tar().file("a", "x").long(b'K', "./a").hard("b", "?").end(),
        ),
    ]
}
