//! Modes and attributes that give power away.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use cutover::release::archive::Limits;
use cutover::release::scan;

use super::build::{Head, Tar};
use super::{Case, Place, accepted, refused, run, small_limits};

pub fn cases() -> Vec<Case> {
    power()
}

#[test]
fn files_get_no_power_that_the_node_does_not_allow() {
    run(power());
}

#[test]
fn what_the_node_allows_is_kept() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED what_the_node_allows_is_kept: needs root");
        return;
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let bytes = Tar::new()
        .entry(Head::new(b'0', "setuid").mode(0o4755).put(108, b"0000007\x000000010\0"), "x")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.x", b"a\nb")])
        .file("capable", "x")
        .end();
    let limits = Limits { allow_setid: true, allow_capabilities: true, ..small_limits() };
    let place = Place::new();
    let built = place.unpack(&bytes, &limits).unwrap();
    let found = place.tree().join("setuid").metadata().unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o4755, 7, 8));
    let capable = scan::walk(&place.tree()).unwrap().next().unwrap().unwrap();
    assert_eq!(capable.xattrs[b"security.capability".as_slice()], capability);
    assert_eq!(capable.xattrs[b"user.x".as_slice()], b"a\nb");
    assert_eq!(scan::digest(&place.tree()).unwrap(), built.tree);
    assert_eq!(built.tree, built.declared);
}

#[test]
fn the_tree_can_be_entered_whatever_its_root_says() {
    let place = Place::new();
    place
        .unpack(&Tar::new().head(Head::new(b'5', "./").mode(0)).file("a", "x").end(), &small_limits())
        .unwrap();
    assert_eq!(place.tree().metadata().unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn modes_times_and_owners_are_the_archives() {
    let bytes = Tar::new()
        .pax(&[("mtime", b"1000000000.123456789")])
        .head(Head::new(b'5', "d").mode(0o2700))
        .entry(Head::new(b'0', "d/closed").mode(0).put(136, b"07346545000\0"), "x")
        .entry(Head::new(b'0', "d/open").mode(0o1777), "x")
        .head(Head::new(b'2', "d/link").mode(0).link("x").put(136, b"07346545000\0"))
        .end();
    let place = Place::new();
    place.unpack(&bytes, &small_limits()).unwrap();
    let of = |name: &str| {
        let found = place.tree().join(name).symlink_metadata().unwrap();
        (found.mode() & 0o7777, found.mtime(), found.mtime_nsec())
    };
    assert_eq!(of("d"), (0o2700, 1_000_000_000, 123_456_789));
    assert_eq!(of("d/closed"), (0, 1_000_000_000, 0));
    assert_eq!(of("d/open"), (0o1777, 0, 0));
    assert_eq!(of("d/link"), (0o777, 1_000_000_000, 0));
}

fn power() -> Vec<Case> {
    let of = |mode| Tar::new().entry(Head::new(b'0', "a").mode(mode), "x").end();
    vec![
        refused("setuid", "SetId", of(0o4755)),
        refused("setgid", "SetId", of(0o2755)),
        refused("both", "SetId", of(0o6755)),
        refused("setuid that nobody may run", "SetId", of(0o4000)),
        accepted("setgid directory", &["d a"], Tar::new().head(Head::new(b'5', "a").mode(0o2775)).end()),
        accepted(
            "setuid of a hard link is not asked",
            &["f a x", "h b a"],
            Tar::new().file("a", "x").head(Head::new(b'1', "b").mode(0o4755).link("a")).end(),
        ),
        accepted("everybody may write", &["f a x"], of(0o666)),
    ]
}
