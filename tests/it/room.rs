//! Room is asked for before a byte is fetched: exit code 16 leaves nothing behind, wherever a release comes from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statvfs::statvfs;

use crate::plan::noise;
use crate::refusals::Desk;
use crate::web::{Server, file, status};

/// A small file system in memory; gone with this.
struct Small(PathBuf);

impl Small {
    fn new(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=755");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(&path).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(path))
    }

    fn used_bytes(&self) -> u64 {
        let found = statvfs(&self.0).unwrap();
        (found.blocks() - found.blocks_free()) * found.fragment_size()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).output());
    }
}

fn names_below(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(names_below(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        names.push(name);
    }
    names.sort();
    names
}

#[test]
fn a_release_without_room_leaves_nothing_behind() {
    const MIB: usize = 1 << 20;
    let desk = Desk::new();
    for number in 0..16 {
        fs::write(desk.path(&format!("app/{number}")), noise(number, MIB)).unwrap();
    }
    desk.release("2.0");
    let directory = desk.path("source");
    // What fits of 16 MiB of archive and 16 MiB of tree: nothing, the archive alone, or nearly all.
    for (kind, size) in [
        ("ranges", "8m"),
        ("ranges", "24m"),
        ("ranges", "32m"),
        ("whole", "24m"),
        ("ordinary", "8m"),
        ("ordinary", "24m"),
    ] {
        let Some(small) = Small::new(desk.path("small"), size) else {
            eprintln!("SKIPPED a_release_without_room_leaves_nothing_behind: no mounts here");
            return;
        };
        if kind == "ordinary" {
            let made = Command::new("tar")
                .args(["-cf", "source/shop-3.0.tar", "app"])
                .current_dir(desk.path("."))
                .status();
            assert!(made.unwrap().success());
            desk.well(&["publish", "source", "3.0", "--product", "shop", "--key", "team"]);
        }
        let served = directory.clone();
        let server = Server::new(move |asked, stream| {
            match fs::read(served.join(asked.path.rsplit('/').next().unwrap_or_default())) {
                Ok(bytes) if kind != "whole" => file(asked, stream, &bytes, "\"1\"", usize::MAX),
                Ok(bytes) => status(stream, "200 OK", "", &bytes),
                Err(_) => status(stream, "404 Not Found", "", b""),
            }
        });
        let root = small.0.join("root");
        fs::create_dir(&root).unwrap();
        let text = format!(
            "root = \"{}\"\n[source]\nurl = \"{}\"\nkeys = [\"{}\"]\nrevoked = \"/nowhere\"\n[store]\nreserve = \"1MiB\"\n",
            root.display(),
            server.url(),
            desk.path("keys").display()
        );
        fs::write(desk.path("small.toml"), text).unwrap();
        assert_eq!(desk.run(&["--config", "small.toml", "update", "--dry-run"]).0, 16, "{kind} {size}: dry");
        let (code, said) = desk.run(&["--config", "small.toml", "update"]);
        assert_eq!(code, 16, "{kind} {size}: {said}");
        let left: Vec<String> = names_below(&root);
        let has_release = left.iter().any(|name| {
            ["part", ".tar", "archive", ".index"].iter().any(|word| name.contains(word))
                || name.starts_with("releases/")
                || name.contains("staging/")
        });
        assert!(!has_release, "{kind} {size}: {left:?}");
        // The reserve, and a few small files.
        assert!(small.used_bytes() < 3 * MIB as u64, "{kind} {size}: {} bytes: {left:?}", small.used_bytes());
        drop(small);
        fs::remove_dir(desk.path("small")).unwrap();
    }
}
