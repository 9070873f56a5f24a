//! Good archives with random damage: never a panic, never an escape, never an endless loop.

use std::io::Cursor;

use cutover::release::archive::{Error, measure};
use cutover::release::stage;
use proptest::prelude::*;

use super::build::{Head, Tar, gzip, zstd};
use super::{Place, small_limits};

/// One of everything.
pub fn good() -> Vec<u8> {
    Tar::new()
        .global(&[("comment", b"c")])
        .directory("a")
        .file("a/b", "content")
        .pax(&[("path", b"a/long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"y\nz")])
        .file("x", "x")
        .long(b'L', "a/c")
        .file("x", [b'x'; 700])
        .link("l", "a/b")
        .hard("h", "a/b")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"9"),
        ])
        .file("x", [b"2\n0\n2\n9\n0\n".as_slice(), &[0; 502], b"xy"].concat())
        .head(Head::v7(0, "old/").mode(0o755))
        .end()
}

/// Damage: a place, and what is put there.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, bool)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6)
}

/// Changes bytes; where the damaged block was a header its checksum is made right again, if asked.
fn damaged(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, u8, bool)]) -> Vec<u8> {
    for (index, byte, seal) in damage {
        let at = index.index(bytes.len());
        bytes[at] = *byte;
        let start = at / 512 * 512;
        if let Some(Ok(block)) = bytes.get(start..start + 512).map(<[u8; 512]>::try_from)
            && *seal
            && block[257..262] == *b"ustar"
        {
            bytes[start..start + 512].copy_from_slice(&Head(block).sealed().0);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_refused_or_harmless(damage in damage(), kind in 0..3) {
        let bytes = match kind {
            0 => damaged(good(), &damage),
            1 => damaged(zstd(&good()), &damage),
            _ => damaged(gzip(&good()), &damage),
        };
        if let Err(Error::Read { source, .. }) = measure(Cursor::new(bytes), "x", &small_limits()) {
            prop_assert!(false, "not the archive's fault: {source}");
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096), magic in 0..4_usize) {
        let mut bytes = bytes;
        let magic: &[u8] = [b"".as_slice(), b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\0", b"\x5a\x2a\x4d\x18"][magic];
        bytes.splice(..0, magic.iter().copied());
        prop_assert!(matches!(measure(Cursor::new(bytes), "x", &small_limits()), Err(Error::Refused(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_leads_out_of_the_tree(damage in damage()) {
        let bytes = damaged(good(), &damage);
        let place = Place::new();
        let judged = measure(Cursor::new(bytes.clone()), "x", &small_limits());
        let built = place.unpack(&bytes, &small_limits());
        place.check("mutation");
        match built {
            // A file system has limits of its own.
            Ok(_) => prop_assert!(judged.is_ok()),
            Err(stage::Error::Archive(_)) => {
                prop_assert_eq!(std::fs::read_dir(place.tree()).unwrap().count(), 0);
            }
            Err(stage::Error::Disk(error)) => prop_assert!(false, "{error}: {:?}", error.source),
        }
    }
}

/// A good archive with damage that this number decides.
pub fn with_seed(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let mut bytes = good();
    for _ in 0..=next(3) {
        let at = next(bytes.len());
        bytes[at] = [0, b' ', b'0', b'7', b'/', b'.', b'\n', b'=', b'a', next(256) as u8][next(10)];
        let start = at / 512 * 512;
        if let Ok(block) = <[u8; 512]>::try_from(&bytes[start..start + 512])
            && block[257..262] == *b"ustar"
        {
            bytes[start..start + 512].copy_from_slice(&Head(block).sealed().0);
        }
    }
    bytes
}
