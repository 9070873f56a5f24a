//! What a person sees and types, tried in a real terminal: `tests/terminal/trials.py` has the trials.

use std::path::Path;
use std::process::Command;

#[test]
fn people_see_and_type_what_they_should() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal/run");
    let output =
        Command::new(script).env("CUTOVER", env!("CARGO_BIN_EXE_cutover")).output().expect("sh runs it");
    let said = crate::node::text(&output.stdout) + &crate::node::text(&output.stderr);
    eprintln!("{said}");
    assert!(output.status.success());
}
