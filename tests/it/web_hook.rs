//! The example of a notification works as it is shipped: a real update, the real script, a web service that listens.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use serde_json::Value;

/// Takes one request, answers it, and says its body.
fn one_message(listener: TcpListener) -> thread::JoinHandle<Value> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
                return serde_json::from_str(body).unwrap();
            }
        }
    })
}

#[test]
fn an_outcome_reaches_a_web_service() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED an_outcome_reaches_a_web_service: needs curl");
        return;
    }
    let desk = crate::refusals::Desk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/hook", listener.local_addr().unwrap());
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/web-hook");
    let script = fs::read_to_string(shipped).unwrap();
    let usual = "https://chat.example.org/hooks/releases";
    assert!(script.contains(usual));
    let hooks = desk.path("app/.cutover/hooks");
    fs::create_dir_all(&hooks).unwrap();
    fs::write(hooks.join("committed"), script.replace(usual, &address)).unwrap();
    fs::set_permissions(hooks.join("committed"), fs::Permissions::from_mode(0o755)).unwrap();
    desk.release("2.0");
    let message = one_message(listener);
    let (code, said) = desk.update();
    assert_eq!(code, 0, "{said}");
    let message = message.join().unwrap();
    let log = desk.well(&["--config", "node.toml", "log", "--json", "-n", "1"]);
    let entry: Value = serde_json::from_str::<Value>(&log).unwrap()[0].clone();
    assert_eq!(message["transaction"], entry["transaction"]);
    let text = message["text"].as_str().unwrap();
    assert!(text.contains("node on ") && text.contains(": committed, 1.0 -> 2.0"), "{text}");
}
