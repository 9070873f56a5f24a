//! `fleet check`: whether the storage can do what a fleet needs, and what it cannot.

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::people::node_name;
use super::{board, settings};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::coord::Settings as FleetSettings;
use crate::coord::board::{Board, Listed, Read};
use crate::coord::check::{self, Machine, Party, Plan, Report};
use crate::coord::facts::names;
use crate::types::clock_words;

/// How many processes of one node race, when no other nodes are named.
const RACERS: usize = 4;
/// How often each pair of nodes measures how long a new name stays hidden.
const VIEWS: usize = 3;

pub fn check(context: &Context, args: &CheckArgs) -> Result<u8, Error> {
    let settings = settings(context)?;
    let node = node_name(context)?;
    let directory = names::node(&node);
    let mut first = board(settings, node.as_str(), None);
    if let Read::Unreachable(why) = first.read(names::FLEET) {
        return Err(Error::Unreachable(why));
    }
    if let Listed::Unreachable(_) = first.list(&directory) {
        return Err(Error::Fleet("this node has not joined the fleet: `cutover fleet join`".into()));
    }
    drop(first);
    let open = || Box::new(board(settings, node.as_str(), None)) as Box<dyn Board + Send>;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    let rounds = usize::try_from(args.rounds).unwrap_or(usize::MAX);
    let (machine, plan) = (Machine { host, id }, Plan { rounds, views: VIEWS, wait: args.wait.0 });
    let report = if args.nodes.is_empty() {
        alone(&open, node.as_str(), Plan { views: 0, ..plan })?
    } else {
        let mut labels: Vec<String> = args.nodes.iter().chain([&node]).map(ToString::to_string).collect();
        labels.sort();
        labels.dedup();
        let me = labels.iter().position(|label| label == node.as_str()).unwrap_or(0);
        let file = |label: &String| format!("{}/{label}/check", names::NODES);
        let parties: Vec<Party> =
            labels.iter().map(|label| Party { label: label.clone(), file: file(label) }).collect();
        check::run(&open, &machine, me, &parties, plan).map_err(told)?
    };
    let parties = if args.nodes.is_empty() { RACERS } else { report.clocks.len() };
    let mut cannot = lacks(&report, settings);
    cannot.extend(super::open_to_all(settings));
    let value = value_of(&report, parties, &cannot, node.as_str());
    if is_unfit(&report) {
        context.output.result(&value, "");
        return Err(Error::Fleet(format!("no fleet can use this storage: {}", cannot.join("; "))));
    }
    context.output.result(&value, &text_of(&report, parties, &cannot));
    Ok(u8::from(report.hidden_longest_ms() > settings.visibility.0.as_secs_f64() * 1000.0))
}

/// Several processes of this node, each with a helper of its own.
fn alone(open: check::Open<'_>, node: &str, plan: Plan) -> Result<Report, Error> {
    let party = |number: usize| Party {
        label: format!("{node} ({number})"),
        file: format!("{}/{node}/check.{number}", names::NODES),
    };
    let parties: Vec<Party> = (1..=RACERS).map(party).collect();
    let reports: Vec<Result<Report, check::Error>> = std::thread::scope(|scope| {
        let parties = &parties;
        let run = move |me: usize| check::run(open, &Machine::default(), me, parties, plan);
        let threads: Vec<_> = (0..RACERS).map(|me| scope.spawn(move || run(me))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut board = open();
    for party in &parties {
        let _ = board.remove(&party.file);
    }
    let mut last = None;
    for report in reports {
        last = Some(report.map_err(told)?);
    }
    last.ok_or_else(|| Error::Fleet("the check did not run".into()))
}

fn told(error: check::Error) -> Error {
    match error {
        check::Error::Unreachable(why) => Error::Unreachable(why),
        error @ (check::Error::Missing(_) | check::Error::Twin(_)) => Error::Fleet(error.to_string()),
    }
}

fn is_unfit(report: &Report) -> bool {
    report.wrong > 0 || report.torn > 0 || report.unknown > 0
}

/// What this storage cannot do, in words.
fn lacks(report: &Report, settings: &FleetSettings) -> Vec<String> {
    let mut cannot = Vec::new();
    let names = report.names;
    if report.wrong > 0 {
        cannot.push(format!("of {names} names, {} were not given to exactly one node", report.wrong));
    }
    if report.torn > 0 {
        cannot.push(format!("{} reads returned what no node had written", report.torn));
    }
    if report.unknown > 0 {
        let why = report.why.clone().unwrap_or_else(|| "no reason was given".into());
        cannot.push(format!("of {names} names {} could not be made: {why}", report.unknown));
    }
    let (visibility, hidden) = (settings.visibility, report.hidden_longest_ms());
    if hidden > visibility.0.as_secs_f64() * 1000.0 {
        cannot.push(format!(
            "a new name stays hidden for {hidden:.0} ms, longer than `visibility` ({visibility}): set it, and `lead`, higher"
        ));
    }
    let skew = settings.skew;
    let skew_ms = skew.0.as_secs_f64() * 1000.0;
    for (label, clock) in &report.clocks {
        match clock {
            None => cannot.push(format!("{label} cannot compare its clock: the storage has none (`skew_check`)")),
            Some(clock) if clock.offset_ms.abs() - clock.error_ms > skew_ms => cannot.push(format!(
                "the clock of {label} is {}, compared with the storage's: more than `skew` ({skew}), and it would not switch",
                clock_words(clock.offset_ms)
            )),
            Some(clock) if clock.error_ms > skew_ms => cannot.push(format!(
                "its time stamps are exact to {:.0} ms only: {label} needs a clock that the kernel calls synchronised",
                clock.error_ms
            )),
            Some(_) => {}
        }
    }
    for (one, other, what) in &report.alike {
        cannot.push(format!("{one} and {other} have the same {what}: NFS may take them for one client"));
    }
    cannot
}

fn value_of(report: &Report, racers: usize, cannot: &[String], node: &str) -> Value {
    let own = report
        .clocks
        .iter()
        .find(|(label, _)| label.as_str() == node || label.starts_with(&format!("{node} (")));
    let own = own.and_then(|(_, clock)| *clock);
    let hidden: Vec<Value> = report
        .hidden_ms
        .iter()
        .map(|(one, other, hidden_ms)| json!({"nodes": [one, other], "hidden_ms": hidden_ms}))
        .collect();
    json!({
        "rounds": report.names, "racers": racers, "wrong": report.wrong, "unknown": report.unknown,
        "torn": report.torn, "reads": report.reads, "first": report.first, "slowest_ms": report.slowest_ms,
        "hidden": hidden, "hidden_longest_ms": report.hidden_longest_ms(), "clocks": report.clocks,
        "clock_offset_ms": own.map(|clock| clock.offset_ms), "clock_error_ms": own.map(|clock| clock.error_ms),
        "cannot": cannot, "is_fit": !is_unfit(report),
    })
}

fn text_of(report: &Report, racers: usize, cannot: &[String]) -> String {
    let won: Vec<String> = report.first.iter().map(|(label, count)| format!("{label} {count}")).collect();
    let mut lines = vec![
        format!("{} races of {racers}: exactly one first in each ({})", report.names, won.join(", ")),
        format!(
            "{} reads meanwhile, each of a whole file; slowest create {:.0} ms",
            report.reads, report.slowest_ms
        ),
    ];
    for (one, other, hidden_ms) in &report.hidden_ms {
        lines.push(format!(
            "between {one} and {other} a new name is seen after {hidden_ms:.0} ms at the most"
        ));
    }
    if report.hidden_ms.is_empty() {
        lines.push("how long a new name stays hidden from another node is found out with NODEs named".into());
    }
    for (label, clock) in &report.clocks {
        if let Some(clock) = clock {
            let (offset, error) = (clock.offset_ms, clock.error_ms);
            lines.push(format!(
                "the storage's clock is {offset:+.1} ms from that of {label}, give or take {error:.1}"
            ));
        }
    }
    lines.extend(cannot.iter().map(|what| format!("warning: {what}")));
    lines.join("\n")
}
