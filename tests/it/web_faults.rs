//! What goes wrong between a node and a web server, and must not stop an update: servers that differ, caches, forges,
//! bursts of errors. Each connection is counted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutover::release::source::{self, Error, Item, Of, Settings};
use cutover::types::Size;

use crate::web::{Asked, SIZE, Server, archive, fetch, file, item, status};

/// Answers with a part as `range` says it, in place of what a good server says.
fn part(asked: &Asked, stream: &mut TcpStream, bytes: &[u8], range: &str) -> std::io::Result<()> {
    let (first, last) = asked.range().unwrap();
    let range = range.replace("FIRST", &first.to_string()).replace("LAST", &last.to_string());
    status(stream, "206 Partial Content", &format!("Content-Range: {range}\r\n"), &bytes[first..=last])
}

fn chunked(stream: &mut TcpStream, status: &str, headers: &str, bytes: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{headers}\r\n")?;
    for piece in bytes.chunks(30_000) {
        write!(stream, "{:x}\r\n", piece.len())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

#[test]
fn what_a_server_says_beside_the_bytes_does_not_count() {
    type Way = fn(&Asked, &mut TcpStream, &[u8], usize) -> std::io::Result<()>;
    let ways: [(&str, Way); 11] = [
        ("each server has another ETag", |asked, stream, bytes, count| {
            file(asked, stream, bytes, &format!("\"{}\"", count % 2), 400_000)
        }),
        ("a cache gives the whole for a part", |asked, stream, bytes, count| match count {
            0 => file(asked, stream, bytes, "\"1\"", usize::MAX),
            _ => status(stream, "200 OK", "", bytes),
        }),
        ("every second server knows no parts", |asked, stream, bytes, count| match count % 2 {
            0 => file(asked, stream, bytes, "\"1\"", 300_000),
            _ => status(stream, "200 OK", "", bytes),
        }),
        ("no size", |asked, stream, bytes, _| part(asked, stream, bytes, "bytes FIRST-LAST/*")),
        ("no range", |asked, stream, bytes, _| {
            let (first, last) = asked.range().unwrap();
            status(stream, "206 Partial Content", "", &bytes[first..=last])
        }),
        ("more than the part", |_, stream, bytes, _| {
            let range = format!("Content-Range: bytes 0-{}/{}\r\n", bytes.len() - 1, bytes.len());
            status(stream, "206 Partial Content", &range, bytes)
        }),
        ("less than the part", |asked, stream, bytes, _| {
            let (first, last) = asked.range().unwrap();
            let last = last.min(first + 299_999);
            let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
            status(stream, "206 Partial Content", &range, &bytes[first..=last])
        }),
        ("parts are refused", |asked, stream, bytes, _| match asked.range() {
            Some(_) => status(stream, "416 Range Not Satisfiable", "", b""),
            None => status(stream, "200 OK", "", bytes),
        }),
        ("a store that says so of what is plain", |asked, stream, bytes, _| {
            let (first, last) = asked.range().unwrap();
            let headers = format!("Content-Encoding: gzip\r\nContent-Range: bytes {first}-{last}/*\r\n");
            status(stream, "206 Partial Content", &headers, &bytes[first..=last])
        }),
        ("no length", |_, stream, bytes, _| chunked(stream, "200 OK", "", bytes)),
        ("a part without a length", |asked, stream, bytes, _| {
            let (first, last) = asked.range().unwrap();
            let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
            chunked(stream, "206 Partial Content", &range, &bytes[first..=last])
        }),
    ];
    let bytes = archive();
    for (name, way) in ways {
        let (served, count) = (bytes.clone(), AtomicUsize::new(0));
        let server = Server::new(move |asked, stream| {
            way(asked, stream, &served, count.fetch_add(1, Ordering::SeqCst))
        });
        let source = source::open(&Settings { retries: 2, ..server.settings() }).unwrap();
        assert!(fetch(&*source, &bytes).is_ok_and(|found| found == bytes), "{name}");
        let ranges = source.archive(item("shop-1.tar"), SIZE).unwrap();
        let mut middle = Vec::new();
        ranges.read_range(500_000, 100_000).unwrap().read_to_end(&mut middle).unwrap();
        assert!(middle == bytes[500_000..600_000], "{name}");
        assert!(server.asked().iter().all(|asked| asked.header("if-range").is_none()), "{name}");
    }
}

#[test]
fn an_answer_to_another_question_is_refused() {
    for lie in ["bytes 5-9/1200000", "bytes 0-1199999/1200001", "bytes 0-9/10", "bytes x", "bytes 9-5/10"] {
        let served = archive();
        let server = Server::new(move |asked, stream| match asked.range() {
            Some((0, 0)) => file(asked, stream, &served, "\"1\"", usize::MAX),
            _ => status(stream, "206 Partial Content", &format!("Content-Range: {lie}\r\n"), &served[..99]),
        });
        let error = fetch(&*server.source(), &archive()).unwrap_err();
        assert!(error.is_refusal(), "{lie}: {error}");
    }
    // Compressed on the way, for nobody.
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let server =
        Server::new(move |_, stream| chunked(stream, "200 OK", "Content-Encoding: gzip\r\n", &packed));
    for error in [
        fetch(&*server.source(), &archive()).unwrap_err(),
        server.source().small(item("shop-1.manifest"), 1000).unwrap_err(),
    ] {
        assert!(error.is_refusal() && error.to_string().contains("Content-Encoding"), "{error}");
    }
    // The size is the signed one, whoever says it.
    for length in [SIZE - 1, SIZE + 1] {
        let server = Server::new(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
        });
        let error = server.source().archive(item("shop-1.tar"), SIZE).err().unwrap();
        assert!(matches!(error, Error::Size { .. }), "{length}: {error}");
    }
}

#[test]
fn a_server_that_gives_up_after_a_while_is_asked_no_more_than_so_often() {
    let bytes = archive();
    let served = bytes.clone();
    let count = AtomicUsize::new(0);
    let server = Server::new(move |asked, stream| match count.fetch_add(1, Ordering::SeqCst) {
        0 => file(asked, stream, &served, "\"1\"", usize::MAX),
        1 => file(asked, stream, &served, "\"1\"", 500_000),
        _ => status(stream, "503 Service Unavailable", "", b""),
    });
    let source = source::open(&Settings { retries: 2, ..server.settings() }).unwrap();
    let error = fetch(&*source, &bytes).unwrap_err();
    assert!(matches!(error, Error::Status { status: 503, .. }), "{error}");
    // The first byte, the half of it, two further attempts.
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn who_asks_to_be_left_alone_is_left_alone() {
    let server =
        Server::new(|_, stream| status(stream, "429 Too Many Requests", "Retry-After: 86400\r\n", b""));
    let source = source::open(&Settings { retries: 5, ..server.settings() }).unwrap();
    let error = source.small(item("stable.channel"), 9).unwrap_err();
    assert!(error.to_string().contains("86400 s"), "{error}");
    assert_eq!(server.asked().len(), 1);
    // A short pause is kept, and then it goes on.
    let count = AtomicUsize::new(0);
    let server = Server::new(move |_, stream| match count.fetch_add(1, Ordering::SeqCst) {
        0 => status(stream, "503 Service Unavailable", "Retry-After: 1\r\n", b""),
        _ => status(stream, "200 OK", "", b"text"),
    });
    let source = source::open(&Settings { retries: 1, ..server.settings() }).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(source.small(item("stable.channel"), 9).unwrap().unwrap(), b"text");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
}

#[test]
fn a_forge_is_asked_by_release_and_file_with_its_token() {
    let bytes = archive();
    let (count, served) = (Arc::new(AtomicUsize::new(0)), bytes.clone());
    // The place that the forge leads to: each address holds for one request.
    let store = Server::new(move |asked, stream| match asked.path.split_once("?sig=") {
        Some((_, sig)) if sig.parse() == Ok(count.fetch_add(1, Ordering::SeqCst)) => {
            file(asked, stream, &served, "\"1\"", 500_000)
        }
        _ => status(stream, "403 Forbidden", "", b"expired"),
    });
    let (elsewhere, signed) = (store.url(), AtomicUsize::new(0));
    let forge = Server::new(move |asked, stream| match asked.path.as_str() {
        "/shop/releases/download/channel-stable/stable.channel" => status(stream, "200 OK", "", b"text"),
        "/shop/releases/download/1.0%2Bb7/shop-1.0%2Bb7.tar" => {
            let location = format!("Location: {elsewhere}?sig={}\r\n", signed.fetch_add(1, Ordering::SeqCst));
            status(stream, "302 Found", &location, b"")
        }
        _ => status(stream, "404 Not Found", "", b""),
    });
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("token");
    std::fs::write(&credentials, "ghp_secret\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = Settings {
        url: Some(format!("{}/releases/download/{{release}}/{{file}}", forge.url())),
        credentials: Some(credentials.to_str().unwrap().to_owned()),
        retries: 3,
        ..Settings::default()
    };
    let source = source::open(&settings).unwrap();
    let channel = Item { of: Of::Channel("stable"), name: "stable.channel" };
    assert_eq!(source.small(channel, 9).unwrap().unwrap(), b"text");
    let item = Item { of: Of::Release("1.0+b7"), name: "shop-1.0+b7.tar" };
    let ranges = source.archive(item, SIZE).unwrap();
    let mut found = Vec::new();
    ranges.read_range(0, SIZE).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == bytes);
    assert!(store.asked().len() >= 4, "cut twice, and asked anew");
    assert!(store.asked().iter().all(|asked| asked.header("authorization").is_none()));
    assert!(forge.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer ghp_secret")));
}

#[test]
fn the_query_of_the_address_goes_with_every_file() {
    let server = Server::new(|asked, stream| match asked.path.as_str() {
        "/shop/stable.channel?sv=TOKEN" => status(stream, "200 OK", "", b"text"),
        _ => status(stream, "403 Forbidden", "", b""),
    });
    let url = Some(format!("{}?sv=TOKEN", server.url()));
    let source = source::open(&Settings { url, ..server.settings() }).unwrap();
    assert_eq!(source.small(item("stable.channel"), 9).unwrap().unwrap(), b"text");
    let error = source.small(item("other"), 9).unwrap_err().to_string();
    assert!(!error.contains("TOKEN") && !source.place().contains("TOKEN"), "{error}");
}

#[test]
fn a_low_rate_reads_little_at_a_time() {
    let bytes = vec![1; 3000];
    let served = bytes.clone();
    let server = Server::new(move |asked, stream| file(asked, stream, &served, "\"1\"", usize::MAX));
    let settings = Settings { rate_limit: Some(Size(4000)), ..server.settings() };
    let ranges = source::open(&settings).unwrap().archive(item("shop-1.tar"), 3000).unwrap();
    let mut reader = ranges.read_range(0, 3000).unwrap();
    assert!(reader.read(&mut [0; 3000]).unwrap() <= 1000);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
}

#[test]
fn an_address_that_nobody_can_read_from_is_refused_by_its_configuration() {
    for (url, is_good) in [
        ("https://releases.example/shop", true),
        ("https://forge.example/d/{release}/{file}", true),
        ("/mnt/releases", true),
        ("FILE:///mnt/releases", true),
        ("ftp://releases.example/shop", false),
        ("https://forge.example/d/{tag}", false),
        ("https://forge.example/d/{release}", true),
        ("https://me:secret@releases.example/", false),
        ("releases", false),
        ("https:///shop", false),
    ] {
        let settings = Settings {
            url: Some(url.to_owned()),
            credentials: Some("/nowhere".to_owned()),
            ..Settings::default()
        };
        assert_eq!(source::check(&settings).is_ok(), is_good, "{url}");
    }
    let wrong_proxy =
        Settings { url: Some("https://x.example".into()), proxy: Some("::".into()), ..Settings::default() };
    assert!(source::check(&wrong_proxy).is_err());
    for (channel, is_good) in
        [("stable", true), ("beta.2", true), ("", false), ("../stable", false), ("a b", false)]
    {
        let settings = Settings { channel: channel.to_owned(), ..Settings::default() };
        assert_eq!(source::check(&settings).is_ok(), is_good, "{channel}");
    }
}
