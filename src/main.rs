//! The command `cutover`.

use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};

fn main() -> ExitCode {
    // Whatever the caller's is: hooks and services inherit it, and files of ours get the modes that they ask for.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    cutover::cli::run(std::env::args_os())
}
