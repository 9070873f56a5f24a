//! A fleet's board in etcd: `directory = "exec:cutover-board-etcd --endpoint https://etcd-1:2379 --prefix /shop"`.
//!
//! A node starts it as its helper, and speaks with it over stdin and stdout. It uses etcd's JSON gateway, and of that
//! only transactions: "put this unless the key is there" is all that a fleet decides by.

mod board;
mod clock;
mod gateway;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cutover::coord::board::serve::{refuse, serve};

use board::EtcdBoard;
use gateway::Gateway;

/// Keep a fleet's facts in etcd
///
/// cutover starts this program itself, when its settings say
/// `directory = "exec:cutover-board-etcd --endpoint URL --prefix PREFIX"`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where etcd answers (repeat the option: the next one is asked when one does not answer)
    #[arg(long, value_name = "URL", required = true)]
    endpoint: Vec<String>,
    /// What all keys begin with; each fleet has its own
    #[arg(long, value_name = "PREFIX", default_value = "/cutover")]
    prefix: String,
    /// The certificates that etcd's is checked against; absent: those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// This node's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The user of etcd to log in as
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// Where the user's password stands, alone
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// How long one endpoint may take to answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
}

fn main() -> ExitCode {
    let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
    let is_typed = from.is_terminal();
    let opened = match Arguments::try_parse() {
        Ok(arguments) => Gateway::open(&arguments),
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
        Err(why) => refuse(&format!("cutover-board-etcd: {why}"), &mut from, &mut to),
        Ok(gateway) => serve(&mut EtcdBoard::new(gateway), &mut from, &mut to),
    };
    ExitCode::from(u8::from(served.is_err()))
}
