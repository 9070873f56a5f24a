//! What an admin has below `/etc/cutover`: a file there that cannot be used is told, and is neither passed over nor the fault of a
//! release.

use std::process::{Command, Output};

use crate::node::{Health, TestNode, needs_root, text};

/// Runs the real program for the application `shop`, whose files a shell has made in a `/etc/cutover` of its own. `None`, said
/// out loud, where that cannot be done.
fn with_files(test: &str, make: &str, words: &[&str]) -> Option<Output> {
    if !needs_root(test) {
        return None;
    }
    let script = format!(
        "set -e; mkdir -p /etc/cutover; mount -t tmpfs -o mode=755 none /etc/cutover; cd /etc/cutover\n{make}\nexec \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_cutover")).args(["--app", "shop"]).args(words);
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    if said.contains("unshare:") || said.contains("mount:") {
        eprintln!("SKIPPED {test}: {said}");
        return None;
    }
    Some(output)
}

#[test]
fn a_file_that_leads_nowhere_or_is_no_directory_is_not_passed_over() {
    let test = "a_file_that_leads_nowhere_or_is_no_directory_is_not_passed_over";
    let node = TestNode::new(&[]);
    let copy = format!("cp {} shop.toml", node.config().display());
    let mut told = Vec::new();
    for make in [
        "ln -s /nowhere shop.toml".to_owned(),
        format!("{copy}; touch shop.toml.d"),
        format!("{copy}; ln -s /nowhere shop.toml.d"),
        format!("{copy}; mkdir shop.toml.d; ln -s /nowhere shop.toml.d/10-more.toml"),
    ] {
        let Some(output) = with_files(test, &make, &["config", "check"]) else { return };
        let said = text(&output.stderr);
        let is_named = !said.contains("there is no ");
        println!("{make}: {} {said}", output.status);
        told.push((make, output.status.code(), is_named));
    }
    told.retain(|(_, code, is_named)| *code != Some(2) || !is_named);
    assert_eq!(told, [], "passed over");
    let Some(whole) = with_files(test, &copy, &["config", "check"]) else { return };
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
}

#[test]
fn a_hook_that_others_may_write_bans_no_release() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let make = format!(
        "cp {} shop.toml; mkdir -p shop.hooks/pre-switch.d; cd shop.hooks/pre-switch.d\n\
         printf '#!/bin/sh\\nexit 0\\n' >10-slip; chmod 777 10-slip",
        node.config().display()
    );
    let archive = node.archive(2);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    let Some(output) = with_files("a_hook_that_others_may_write_bans_no_release", &make, &words) else {
        return;
    };
    let after = (node.active(), node.state()["bad"].clone());
    assert_eq!(after, (Some("1".to_owned()), serde_json::json!([])), "{output:?}");
    assert!(matches!(output.status.code(), Some(1 | 2 | 15)), "{output:?}");
    assert!(text(&output.stdout).contains("10-slip"), "{output:?}");
    assert_eq!(node.update(2), 0, "it may be tried again");
}
