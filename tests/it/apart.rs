//! The process that reads a source, seen from outside: what it may do, and what becomes of an update when it ends.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::release::source::{self, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};

use crate::web::{SIZE, Server, archive, fetch, file, item, status};

fn apart(url: String) -> Settings {
    let reader = Some(env!("CARGO_BIN_EXE_cutover").into());
    Settings { url: Some(url), retries: 0, reader, ..Settings::default() }
}

/// The processes that this one has started to read sources from `url` are not to be told apart by name: by their parent.
fn children() -> Vec<i32> {
    let ours = std::process::id().to_string();
    let of = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest = stat.rsplit_once(") ")?.1;
        (rest.split(' ').nth(1)? == ours && !rest.starts_with('Z')).then(|| pid.parse().ok()).flatten()
    };
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| of(name.to_str()?)).collect()
}

fn status_of(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

#[test]
fn a_source_is_read_by_a_process_of_its_own() {
    let bytes = archive();
    let served = bytes.clone();
    let server = Server::new(move |asked, stream| match asked.path.as_str() {
        "/shop/stable.channel" => status(stream, "200 OK", "", b"text"),
        "/shop/shop-1.tar" => file(asked, stream, &served, "\"1\"", usize::MAX),
        "/shop/broken" => status(stream, "500 Sorry", "", b""),
        _ => status(stream, "404 Not Found", "", b""),
    });
    let source = source::open_apart(&apart(server.url())).unwrap();
    assert_eq!(source.place(), server.url());
    assert_eq!(source.small(item("stable.channel"), 4).unwrap().unwrap(), b"text");
    assert!(source.small(item("stable.channel"), 3).unwrap_err().is_refusal());
    assert!(source.small(item("absent"), 3).unwrap().is_none());
    assert!(matches!(source.archive(item("absent"), 9), Err(source::Error::Missing(_))));
    let told = source.small(item("broken"), 3).unwrap_err().to_string();
    assert!(told.contains("status 500"), "{told}");
    assert!(fetch(source.as_ref(), &bytes).unwrap() == bytes);
    // Two parts at once, one of them left in the middle.
    let ranges = source.archive(item("shop-1.tar"), SIZE).unwrap();
    let mut one = ranges.read_range(0, 600_000).unwrap();
    let mut other = ranges.read_range(600_000, 600_000).unwrap();
    let (mut start, mut end) = ([0; 1000], Vec::new());
    std::io::Read::read_exact(&mut one, &mut start).unwrap();
    drop(one);
    std::io::Read::read_to_end(&mut other, &mut end).unwrap();
    assert!(start[..] == bytes[..1000] && end == bytes[600_000..]);
    let wrong = source::open_apart(&Settings { credentials: Some("/nowhere".into()), ..apart(server.url()) });
    let told = wrong.err().unwrap().to_string();
    assert!(told.contains("/nowhere"), "{told}");
}

#[test]
fn the_process_that_reads_has_no_rights() {
    let server = Server::new(|_, stream| status(stream, "200 OK", "", b"text"));
    let source = source::open_apart(&apart(server.url())).unwrap();
    source.small(item("stable.channel"), 9).unwrap();
    let [pid] = children()[..] else { panic!("it is one process") };
    assert_eq!(status_of(pid, "NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        if getuid().is_root() {
            assert_eq!(status_of(pid, set), "0000000000000000", "{set}");
        }
    }
    if getuid().is_root() {
        assert_eq!(status_of(pid, "Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(status_of(pid, "Gid:"), "65534\t65534\t65534\t65534");
        assert_eq!(status_of(pid, "Groups:"), "");
        let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        let is_fine = |link: &String| link.starts_with("socket:") || link == "/dev/null";
        assert!(open.iter().all(is_fine), "{open:?}");
    } else {
        eprintln!("SKIPPED user and files: not root");
    }
    assert_eq!(status_of(pid, "Seccomp:"), "2");
    drop(source);
    assert!(children().is_empty(), "it ends with whoever started it");
}

#[test]
fn an_update_whose_reader_is_killed_fails_and_says_so() {
    let bytes = archive();
    let (served, is_begun) = (bytes.clone(), Arc::new(AtomicBool::new(false)));
    let begun = Arc::clone(&is_begun);
    let server = Server::new(move |asked, stream| {
        if asked.range() == Some((0, 0)) {
            return file(asked, stream, &served, "\"1\"", usize::MAX);
        }
        write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Length: {SIZE}\r\n")?;
        write!(stream, "Content-Range: bytes 0-{}/{SIZE}\r\n\r\n", SIZE - 1)?;
        stream.write_all(&served[..1000])?;
        begun.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    });
    let source = source::open_apart(&apart(server.url())).unwrap();
    let reader = std::thread::spawn(move || fetch(source.as_ref(), &bytes).map(drop));
    let since = Instant::now();
    while !is_begun.load(Ordering::SeqCst) && since.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let [pid] = children()[..] else { panic!("it is one process") };
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let error = reader.join().unwrap().unwrap_err();
    assert!(!error.is_refusal(), "{error}");
}

#[test]
fn a_program_that_is_no_reader_is_told() {
    for program in ["/bin/true", "/nowhere"] {
        let settings =
            Settings { reader: Some(Path::new(program).to_owned()), ..apart("http://127.0.0.1:1/".into()) };
        assert!(source::open_apart(&settings).is_err(), "{program}");
    }
}
