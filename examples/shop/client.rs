//! Visitors: one who asks once, and a crowd that asks all the time and notices every moment without an answer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

const TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// The body of one answer with status 200; any other is an error.
pub fn get(url: &str) -> io::Result<String> {
    let wrong = || io::Error::other(format!("`{url}` is not of the form http://127.0.0.1:PORT/PATH"));
    let (port, path) = url
        .strip_prefix("http://127.0.0.1:")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .ok_or_else(wrong)?;
    let mut stream = connect(port.parse().map_err(|_| wrong())?)?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("half an answer"))?;
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(format!("{}: {}", head.lines().next().unwrap_or(""), body.trim_end())))
    }
}

/// Whether somebody listens there.
pub fn connects(port: u16) -> bool {
    connect(port).is_ok()
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Asks again and again until SIGTERM, then prints how many answers there were of which release, and how many not.
pub fn load(port: u16) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let crowd = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || ask_until(&is_over, port)
    });
    signals.wait()?;
    is_over.store(true, Ordering::SeqCst);
    let seen = crowd.join().map_err(|_| io::Error::other("the crowd is gone"))?;
    println!("{seen}");
    Ok(())
}

fn ask_until(is_over: &AtomicBool, port: u16) -> String {
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = 0_u64;
    let mut last_answer = Instant::now();
    let mut longest_gap = Duration::ZERO;
    while !is_over.load(Ordering::SeqCst) {
        match get(&format!("http://127.0.0.1:{port}/")) {
            Ok(body) => {
                let greeting = body.split(" (").next().unwrap_or("").to_owned();
                *answers.entry(greeting).or_default() += 1;
                longest_gap = longest_gap.max(last_answer.elapsed());
                last_answer = Instant::now();
            }
            Err(_) => failed += 1,
        }
        std::thread::sleep(PAUSE);
    }
    let total: u64 = answers.values().sum();
    let each: Vec<String> =
        answers.iter().map(|(greeting, count)| format!("{count} x \"{greeting}\"")).collect();
    format!(
        "{total} answers ({}), {failed} failed; the longest wait between two answers was {} ms",
        each.join(", "),
        longest_gap.as_millis()
    )
}
