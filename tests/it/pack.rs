//! Archives that `release::pack` makes, as other programs see them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cutover::release::index::{FrameKind, Index};
use cutover::release::pack::{LEVEL, Owners, PackOrder, Packed, pack};
use cutover::release::source::LocalFile;
use cutover::sys::disk::Disk;
use cutover::types::progress::Silent;

/// A tree with something of each kind.
pub fn make_tree(root: &Path) {
    let write = |path: &str, content: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("bin/shop", b"#!/bin/sh\necho shop\n");
    fs::set_permissions(root.join("bin/shop"), PermissionsExt::from_mode(0o755)).unwrap();
    for number in 0..300 {
        write(
            &format!("lib/{}/{number}.js", number % 7),
            format!("content {number}\n").repeat(number).as_bytes(),
        );
    }
    write("empty", b"");
    write(&format!("{}/{}", "d".repeat(150), "n".repeat(120)), b"long");
    write("name with \n and \u{e9}", b"odd");
    let big: Vec<u8> =
        (0..5_000_003u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    write("share/big", &big);
    write("share/bigger", &big.repeat(2));
    symlink("../bin/shop", root.join("lib/link")).unwrap();
    symlink("nowhere/".repeat(30), root.join("lib/long-link")).unwrap();
    fs::hard_link(root.join("bin/shop"), root.join("bin/again")).unwrap();
    fs::create_dir(root.join("hollow")).unwrap();
}

/// Packs `directory` into `output`.
pub fn packed(directory: &Path, output: &Path, base: Option<&Path>) -> Packed {
    let order = PackOrder {
        directory: directory.to_owned(),
        product: "shop".to_owned(),
        version: "2".parse().unwrap(),
        output: output.to_owned(),
        base: base.map(Path::to_owned),
        level: LEVEL,
        jobs: 0,
        owners: Owners::Kept,
    };
    pack(&order, &Disk::default(), &Silent).unwrap()
}

fn index(archive: &Path) -> Index<'static> {
    let file = LocalFile::new(fs::File::open(archive).unwrap(), archive).unwrap();
    Index::open(Arc::new(file), None).unwrap().unwrap()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn setting() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("shop-2.tar.zst"));
    fs::create_dir(&tree).unwrap();
    (directory, tree, archive)
}

#[test]
fn other_programs_unpack_the_same_tree() {
    let (directory, tree, archive) = setting();
    make_tree(&tree);
    packed(&tree, &archive, None);
    run(Command::new("zstd").arg("-tq").arg(&archive));
    for program in ["tar", "bsdtar"] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED other_programs_unpack_the_same_tree: needs {program}");
            continue;
        }
        let out = directory.path().join(program);
        fs::create_dir(&out).unwrap();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").arg("--zstd").arg("-xpf").arg(&archive).arg("-C").arg(&out);
        run(&mut command);
        let again = directory.path().join("again.tar.zst");
        packed(&out, &again, None);
        for (one, other) in index(&archive).records().zip(index(&again).records()) {
            assert_eq!(one.unwrap(), other.unwrap(), "{program}");
        }
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let (directory, tree, archive) = setting();
    make_tree(&tree);
    let first = packed(&tree, &archive, None);
    assert_eq!(first, packed(&tree, &directory.path().join("other.tar.zst"), None));
    assert_eq!(first.size, fs::metadata(&archive).unwrap().len());
}

#[test]
fn the_index_says_what_was_packed() {
    let (_directory, tree, archive) = setting();
    make_tree(&tree);
    let packed = packed(&tree, &archive, None);
    let index = index(&archive);
    assert_eq!(index.digest(), packed.index);
    assert_eq!(index.root().tree, packed.tree);
    let mut digest = cutover::types::entry::TreeDigest::default();
    for record in index.records() {
        digest.add(&record.unwrap().entry);
    }
    assert_eq!(digest.finish(), packed.tree);
    let frames = index.frames().unwrap();
    assert_eq!(frames.first().unwrap().kind, FrameKind::Links);
    assert_eq!(frames.last().unwrap().kind, FrameKind::End);
    assert!(frames.iter().filter(|frame| frame.kind == FrameKind::Chunk).count() > 2);
}

#[test]
fn what_changed_comes_first_and_the_rest_keeps_its_time() {
    let (directory, tree, archive) = setting();
    make_tree(&tree);
    packed(&tree, &archive, None);
    fs::write(tree.join("lib/3/10.js"), "changed").unwrap();
    for unchanged in ["lib/1/1.js", "empty"] {
        let file = fs::File::options().write(true).open(tree.join(unchanged)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    fs::rename(tree.join("lib/2/2.js"), tree.join("lib/2/moved.js")).unwrap();
    let next = directory.path().join("shop-3.tar.zst");
    packed(&tree, &next, Some(&archive));
    let index = index(&next);
    let newest: Vec<_> = index
        .records()
        .map(Result::unwrap)
        .filter(|record| record.generation == index.root().generation)
        .map(|record| String::from_utf8(record.entry.path).unwrap())
        .collect();
    assert_eq!(newest, ["lib/3/10.js"]);
    assert!(index.records().all(|record| record.unwrap().entry.mtime.0 > 0));
}

#[test]
fn a_release_that_no_node_would_read_is_not_packed() {
    let (directory, tree, archive) = setting();
    fs::write(tree.join("VERSION"), "2").unwrap();
    let pack = |more: &[&str], output: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("pack").arg(&tree).args(["--version", "2", "-o"]).arg(output).args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let inside = tree.join("shop-2.tar.zst");
    let odd = directory.path().join("a b-2.tar.zst");
    for (what, more, output) in [
        ("a line break", &["--product", "shop\nx-more = y"][..], &archive),
        ("a blank", &["--product", "a shop"], &archive),
        ("no name", &["--product", ""], &archive),
        ("an odd file name", &["--product", "shop"], &odd),
        ("an odd kind of node", &["--product", "shop", "--compatible", "a,b"], &archive),
        (
            "data that it cannot read",
            &["--product", "shop", "--data-read", "3", "--data-write", "4"],
            &archive,
        ),
        ("an archive within itself", &["--product", "shop"], &inside),
    ] {
        let (code, said) = pack(more, output);
        assert_eq!(code, Some(2), "{what}: {said}");
        assert!(said.contains("hint:") && !output.exists(), "{what}: {said}");
    }
    let good = ["--product", "shop", "--compatible", "x86_64", "--compatible", "arm64"];
    assert_eq!(pack(&good, &archive).0, Some(0));
    let manifest = fs::read_to_string(archive.with_file_name("shop-2.manifest")).unwrap();
    assert!(manifest.contains("compatible = x86_64, arm64\n"), "{manifest}");
}
