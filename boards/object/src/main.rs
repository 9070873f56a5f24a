//! A fleet's board in an object store: `directory = "exec:cutover-board-object s3://bucket/shop"`.
//!
//! A node starts it as its helper, and speaks with it over stdin and stdout. Of the store it needs one thing: a put that
//! is refused when the name is there (`If-None-Match: *`, `ifGenerationMatch=0`).

mod board;
mod store;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cutover::coord::board::serve::{refuse, serve};

use board::ObjectBoard;

/// Keep a fleet's facts in an object store
///
/// cutover starts this program itself, when its settings say
/// `directory = "exec:cutover-board-object s3://BUCKET/PREFIX"`. Settings of the store, and its keys, are taken from
/// the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`), from `--options`, and from `--option`; the last one counts.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Bucket and prefix: s3://…, gs://…, az://… or their https:// forms; each fleet has its own
    #[arg(value_name = "URL")]
    url: String,
    /// A setting of the store, as `aws_region=eu-central-1` (repeat the option)
    #[arg(long, value_name = "NAME=VALUE")]
    option: Vec<String>,
    /// A file of such settings, one a line
    #[arg(long, value_name = "FILE")]
    options: Option<PathBuf>,
    /// How long one access may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
}

fn main() -> ExitCode {
    let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
    let is_typed = from.is_terminal();
    let opened = match Arguments::try_parse() {
        Ok(arguments) => open(&arguments),
        Err(error) if is_typed || !error.use_stderr() => error.exit(),
        Err(error) => Err(error.to_string()),
    };
    let served = match opened {
        Err(why) if is_typed => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
        Ok(_) if is_typed => {
            eprintln!("error: cutover starts this program: name it as `directory` in the `[fleet]` table");
            return ExitCode::from(2);
        }
        // Nobody reads stderr; whoever asks is told.
        Err(why) => refuse(&format!("cutover-board-object: {why}"), &mut from, &mut to),
        Ok(mut board) => serve(&mut board, &mut from, &mut to),
    };
    ExitCode::from(u8::from(served.is_err()))
}

fn open(arguments: &Arguments) -> Result<ObjectBoard, String> {
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let (store, prefix) = store::open(arguments, timeout)?;
    ObjectBoard::new(store, prefix, timeout)
}
