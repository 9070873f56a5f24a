//! Plans come true: what `update --dry-run`, `check` and `rollback --check` announce is what happens.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::refusals::Desk;
use crate::web::{Asked, Server, file, status};

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Serves the desk's source over HTTP, with ranges, and has the node follow it there.
pub fn served(desk: &Desk) -> Server {
    let directory = desk.path("source");
    let server = Server::new(move |asked, stream| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        match fs::read(directory.join(name)) {
            Ok(bytes) => file(asked, stream, &bytes, &format!("\"{}\"", bytes.len()), usize::MAX),
            Err(_) => status(stream, "404 Not Found", "", b""),
        }
    });
    let text = fs::read_to_string(desk.path("node.toml")).unwrap();
    let url = text.lines().find(|line| line.starts_with("url")).unwrap();
    fs::write(desk.path("node.toml"), text.replace(url, &format!("url = \"{}\"", server.url()))).unwrap();
    server
}

/// Every byte of archives that was asked for; the question for the first one, which tells the size, is left out.
fn bytes_asked(asked: &[Asked]) -> BTreeSet<usize> {
    let archives = asked.iter().filter(|asked| asked.path.ends_with(".zst"));
    archives.filter_map(Asked::range).filter(|range| *range != (0, 0)).flat_map(|(a, b)| a..=b).collect()
}

fn bytes_planned(plan: &Value) -> BTreeSet<usize> {
    let ranges = plan["fetch_ranges"].as_array().unwrap();
    let number = |range: &Value, key: &str| usize::try_from(range[key].as_u64().unwrap()).unwrap();
    let bytes = |range: &Value| number(range, "start")..number(range, "start") + number(range, "bytes");
    ranges.iter().flat_map(bytes).collect()
}

#[test]
fn exactly_the_announced_bytes_are_fetched() {
    let desk = Desk::new();
    for number in 0..60 {
        fs::write(desk.path(&format!("app/{number:02}")), noise(number, 60_000)).unwrap();
    }
    desk.release("2.0");
    let server = served(&desk);
    let plan = |words: &[&str]| -> (i32, Value) {
        let (code, said) = desk.run(&[&["--config", "node.toml", "--json"], words].concat());
        (code, serde_json::from_str(said.lines().find(|line| line.starts_with('{')).unwrap()).unwrap())
    };
    for (step, is_changed) in [("2.0", false), ("2.1", true)] {
        if is_changed {
            fs::write(desk.path("app/30"), noise(1030, 70_000)).unwrap();
            fs::rename(desk.path("app/07"), desk.path("app/moved")).unwrap();
            desk.release("2.1");
        }
        let (code, checked) = plan(&["check"]);
        assert_eq!((code, checked["version"].as_str()), (0, Some(step)));
        let (code, planned) = plan(&["update", "--dry-run"]);
        assert_eq!(code, 0, "{planned}");
        assert_eq!(planned["fetch_ranges"], checked["fetch_ranges"]);
        let before = server.asked().len();
        assert_eq!(desk.update().0, 0);
        let (asked, announced) = (bytes_asked(&server.asked()[before..]), bytes_planned(&planned));
        assert_eq!(asked.len() as u64, planned["fetch_bytes"].as_u64().unwrap(), "{step}: {planned}");
        assert_eq!(asked, announced, "{step}: other bytes were fetched than announced");
        let whole = planned["archive_bytes"].as_u64().unwrap();
        assert_eq!(is_changed, (asked.len() as u64) < whole / 4, "{step}: {} of {whole}", asked.len());
    }
    let (code, planned) = plan(&["update", "--dry-run"]);
    assert_eq!((code, planned["outcome"].as_str()), (0, Some("nothing_to_do")), "{planned}");
}

#[test]
fn the_ends_of_a_dry_run_are_those_of_the_run() {
    let desk = Desk::new();
    let dry = || desk.run(&["--config", "node.toml", "update", "--dry-run"]);
    let here = |words: &[&str]| desk.run(&[&["--config", "node.toml"], words].concat());
    let (code, said) = dry();
    assert_eq!(code, 0, "{said}");
    for wanted in ["from release 1.0 to release 1.1", "fetch ", "write ", "service ", "data "] {
        assert!(said.contains(wanted), "`{wanted}` is not in {said}");
    }
    assert_eq!(here(&["hold", "--reason", "a fair"]).0, 0);
    let (code, said) = dry();
    assert_eq!((code, here(&["update"]).0), (15, 15), "{said}");
    assert!(said.contains("not now  held by") && said.contains("a fair"), "{said}");
    assert!(said.contains("nothing: it is staged already") || said.contains("whole archive"), "{said}");
    assert_eq!(here(&["unhold"]).0, 0);
    assert_eq!(here(&["mark-bad", "1.1", "--reason", "a test"]).0, 0);
    let (code, said) = dry();
    assert_eq!((code, here(&["update"]).0), (15, 15), "{said}");
    assert_eq!(here(&["mark-good", "1.1"]).0, 0);
    let (code, said) = dry();
    assert!(code == 0 && said.contains("nothing: it is staged already"), "{said}");
    desk.release("1.2");
    assert_eq!(here(&["update"]).0, 0);
    let (code, said) = here(&["rollback", "--check"]);
    assert!(code == 0 && said.contains("from release 1.2 to 1.0"), "{code}: {said}");
}

#[test]
fn update_check_and_status_name_the_same_policies() {
    let desk = Desk::new();
    let here = |words: &[&str]| desk.run(&[&["--config", "node.toml", "--json"], words].concat());
    let blocked = |said: &str| -> Value {
        let line = said.lines().find(|line| line.starts_with('{')).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["blocked"].clone()
    };
    let in_three_days = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72);
    let day = in_three_days.to_zoned_datetime(jiff::tz::TimeZone::UTC).date().weekday();
    let day: String = format!("{day:?}").chars().take(3).collect();
    let text = fs::read_to_string(desk.path("node.toml")).unwrap();
    let policy = format!(
        "[policy]\njitter = '3000d'\nwindows = [{{ days = ['{day}'], start = '12:00', length = '10min' }}]\n"
    );
    fs::write(desk.path("node.toml"), format!("{text}{policy}")).unwrap();
    desk.well(&[
        "publish",
        "source",
        "1.1",
        "--product",
        "shop",
        "--key",
        "team",
        "--percent",
        "0",
        "--wave",
        "2d=100",
    ]);
    assert_eq!(here(&["hold", "--until", "1d", "--reason", "a fair"]).0, 0);
    let (code, said) = here(&["update"]);
    assert_eq!(code, 15, "{said}");
    let told = blocked(&said);
    let names: Vec<_> = told.as_array().unwrap().iter().map(|one| one["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["hold", "window", "jitter", "phase"], "{told}");
    for one in told.as_array().unwrap() {
        let until: jiff::Timestamp = one["until"].as_str().unwrap().parse().unwrap();
        assert!(until > jiff::Timestamp::now(), "{one}");
    }
    for words in [&["status"][..], &["check"], &["update", "--dry-run"]] {
        let (_, said) = here(words);
        assert_eq!(blocked(&said), told, "{words:?}");
    }
    // Urgency passes all but the hold.
    assert_eq!(here(&["update", "--now"]).0, 15);
    assert_eq!(here(&["unhold"]).0, 0);
    assert_eq!(here(&["update", "--now"]).0, 0);
}
