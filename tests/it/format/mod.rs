//! The archive's format, read by a program that shares no code with this one.

use std::fs;
use std::process::Command;

use crate::pack::{make_tree, packed};

#[test]
fn another_implementation_reads_the_archive() {
    if Command::new("python3").arg("--version").output().is_err()
        || Command::new("zstd").arg("--version").output().is_err()
    {
        eprintln!("SKIPPED another_implementation_reads_the_archive: needs python3 and zstd");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let (first, second) = (directory.path().join("a.tar.zst"), directory.path().join("b.tar.zst"));
    let mut digests = vec![(first.clone(), packed(&tree, &first, None).tree)];
    fs::write(tree.join("lib/3/10.js"), "changed").unwrap();
    digests.push((second.clone(), packed(&tree, &second, Some(&first)).tree));
    for (archive, tree) in digests {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/format/read.py");
        let output = Command::new("python3").arg(script).arg(&archive).output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out.trim(), tree.hex(), "{error}");
    }
}
