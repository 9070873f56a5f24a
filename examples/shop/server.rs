//! The server: one thread for each connection, one file of orders, and the behaviour that the release's file asks for.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::orders::Orders;

/// How a release behaves: `etc/shop.conf`, lines of `key = value`.
#[derive(Default)]
struct Behaviour {
    /// What it says to visitors.
    greeting: String,
    /// Answers 500 so long after its first answer.
    sick_after: Option<Duration>,
    /// Ends at once.
    crashes: bool,
    /// Takes so long to start.
    start_delay: Duration,
    /// The form of the orders that it writes; older ones are migrated when it starts.
    schema: u32,
}

struct Shop {
    behaviour: Behaviour,
    orders: Mutex<Orders>,
    first_answer: OnceLock<Instant>,
    under_way: AtomicUsize,
    is_closing: AtomicBool,
}

/// Serves until SIGTERM.
pub fn serve(tree: &Path, port: u16, data: &Path) -> io::Result<()> {
    // Before any thread is made: all inherit it, and only the wait below takes the signal.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;

    let behaviour = read_behaviour(&tree.join("etc/shop.conf"))?;
    if behaviour.crashes {
        return Err(io::Error::other("this release cannot start"));
    }
    let orders = Orders::open(data, behaviour.schema)?;
    std::thread::sleep(behaviour.start_delay);
    // The standard library sets SO_REUSEADDR: the next release can listen at once.
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let shop = Arc::new(Shop {
        behaviour,
        orders: Mutex::new(orders),
        first_answer: OnceLock::new(),
        under_way: AtomicUsize::new(0),
        is_closing: AtomicBool::new(false),
    });
    let doors = std::thread::spawn({
        let (shop, listener) = (Arc::clone(&shop), listener.try_clone()?);
        move || accept(&shop, &listener)
    });
    signals.wait()?;
    shop.is_closing.store(true, Ordering::SeqCst);
    // Wakes the thread at the door; it then serves who came before, and leaves.
    drop(TcpStream::connect(("127.0.0.1", port)));
    doors.join().map_err(|_| io::Error::other("the thread at the door is gone"))?;
    let patience = Instant::now();
    while shop.under_way.load(Ordering::SeqCst) > 0 && patience.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn accept(shop: &Arc<Shop>, listener: &TcpListener) {
    loop {
        if shop.is_closing.load(Ordering::SeqCst) && listener.set_nonblocking(true).is_err() {
            return;
        }
        match listener.accept() {
            Ok((visitor, _)) => {
                let shop = Arc::clone(shop);
                shop.under_way.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // A visitor who leaves early is no error of the shop.
                    let _ = visitor.set_nonblocking(false).and_then(|()| answer(&shop, visitor));
                    shop.under_way.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn answer(shop: &Shop, mut visitor: TcpStream) -> io::Result<()> {
    visitor.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut reader = BufReader::new(visitor.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let (status, body) = respond(shop, path);
    write!(
        visitor,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn respond(shop: &Shop, path: &str) -> (&'static str, String) {
    let first = shop.first_answer.get_or_init(Instant::now);
    if shop.behaviour.sick_after.is_some_and(|after| first.elapsed() >= after) {
        return ("500 Internal Server Error", "out of tea\n".to_owned());
    }
    let Ok(mut orders) = shop.orders.lock() else {
        return ("500 Internal Server Error", "the book of orders is lost\n".to_owned());
    };
    match path.strip_prefix("/order/") {
        Some(item) => match orders.add(item) {
            Ok(number) => ("200 OK", format!("order {number}: {item}\n")),
            Err(error) => ("507 Insufficient Storage", format!("{error}\n")),
        },
        None if path == "/up" => ("200 OK", "up\n".to_owned()),
        None => ("200 OK", format!("{} ({} orders so far)\n", shop.behaviour.greeting, orders.count())),
    }
}

fn read_behaviour(path: &Path) -> io::Result<Behaviour> {
    let mut behaviour = Behaviour { schema: 1, ..Behaviour::default() };
    for line in fs::read_to_string(path)?.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        let seconds = || value.parse().map(Duration::from_secs_f64).unwrap_or_default();
        match key {
            "greeting" => behaviour.greeting = value.to_owned(),
            "sick_after" => behaviour.sick_after = Some(seconds()),
            "crashes" => behaviour.crashes = value == "true",
            "start_delay" => behaviour.start_delay = seconds(),
            "schema" => behaviour.schema = value.parse().unwrap_or(1),
            _ => return Err(io::Error::other(format!("unknown key `{key}` in {}", path.display()))),
        }
    }
    Ok(behaviour)
}
