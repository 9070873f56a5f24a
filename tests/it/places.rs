//! Releases where they live: published to a registry, a bucket and a web server, and installed from there, for real.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::refusals::Desk;

/// A server of this test; it ends with it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server that listens at this port soon; `None` when the program is not here.
fn daemon(test: &str, port: u16, command: &mut Command) -> Option<Daemon> {
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = started else {
        eprintln!("SKIPPED {test}: no {}", command.get_program().to_string_lossy());
        return None;
    };
    let daemon = Daemon(child);
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?} does not listen", command.get_program());
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(daemon)
}

/// A registry of Debian's; with `password`, one that wants to know who asks.
fn registry(test: &str, desk: &Desk, password: bool) -> Option<(Daemon, u16)> {
    let port = free_port();
    let data = desk.path("registry");
    let auth = match password {
        // `me:secret`, as htpasswd -B makes it.
        true => {
            let line = "me:$2y$05$Lq9Z5nXNHN2xSbFDX1RhJ.Zd1Ev36VJMFPnkRFWvaQFGT5L5wugki\n";
            fs::write(desk.path("htpasswd"), line).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", desk.path("htpasswd").display())
        }
        false => String::new(),
    };
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
        data.display()
    );
    fs::write(desk.path("registry.yml"), text).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(desk.path("registry.yml"));
    Some((daemon(test, port, &mut command)?, port))
}

/// The desk's node follows this place.
fn follow(desk: &Desk, url: &str, more: &str) {
    let text = fs::read_to_string(desk.path("node.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("url")).unwrap().to_owned();
    fs::write(desk.path("node.toml"), text.replace(&line, &format!("url = \"{url}\"\n{more}"))).unwrap();
}

/// Publishes, installs, updates, and tries what must be refused.
fn lives_there(desk: &Desk, url: &str, credentials: Option<&str>) {
    let mut words = vec!["publish", "source", "--product", "shop", "--key", "team", "--to", url];
    let mut more = String::new();
    if let Some(text) = credentials {
        fs::write(desk.path("credentials"), text).unwrap();
        fs::set_permissions(desk.path("credentials"), fs::Permissions::from_mode(0o600)).unwrap();
        words.extend(["--credentials", "credentials"]);
        more = format!("credentials = \"{}\"", desk.path("credentials").display());
    }
    follow(desk, url, &more);
    let publish = |version: &str| {
        let mut words = words.clone();
        words.insert(2, version);
        desk.run(&words)
    };
    let (code, said) = publish("1.1");
    assert_eq!(code, 0, "{url}: {said}");
    let (code, said) = desk.run(&["--config", "node.toml", "check"]);
    assert_eq!(code, 0, "{url}: {said}");
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, "1.1"), "{url}: {said}");
    // Another publisher, who knows nothing of what is here, goes on from what is there.
    fs::remove_file(desk.path("source/stable.channel")).unwrap();
    desk.release("1.2+b7");
    let (code, said) = publish("1.2+b7");
    assert_eq!(code, 0, "{url}: {said}");
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, "1.2+b7"), "{url}: {said}");
    // What is there is not brought again, and never changed.
    let copy = ["copy", "source", url, "--credentials", "credentials"];
    let copy = if credentials.is_some() { &copy[..] } else { &copy[..3] };
    let (code, said) = desk.run(copy);
    assert!(code == 0 && said.contains("all is there"), "{url}: {said}");
    // From there to a directory: for a node without a network.
    fs::create_dir(desk.path("stick")).unwrap();
    let back = ["copy", url, "stick", "--from-credentials", "credentials"];
    let (code, said) = desk.run(if credentials.is_some() { &back[..] } else { &back[..3] });
    assert_eq!(code, 0, "{url}: {said}");
    let names = |folder: &str| fs::read_dir(desk.path(folder)).unwrap().count();
    assert_eq!(names("stick"), 5, "{url}: archive, manifest, channel, two signatures");
    fs::remove_dir_all(desk.path("stick")).unwrap();
}

#[test]
fn a_registry_is_published_to_and_installed_from() {
    let desk = Desk::new();
    let test = "a_registry_is_published_to_and_installed_from";
    let Some((_daemon, port)) = registry(test, &desk, false) else { return };
    lives_there(&desk, &format!("oci://127.0.0.1:{port}/team/shop"), None);
}

#[test]
fn a_registry_that_wants_a_password_gets_it() {
    let desk = Desk::new();
    let test = "a_registry_that_wants_a_password_gets_it";
    let Some((_daemon, port)) = registry(test, &desk, true) else { return };
    let url = format!("oci://127.0.0.1:{port}/team/shop");
    let (code, said) =
        desk.run(&["publish", "source", "1.1", "--product", "shop", "--key", "team", "--to", &url]);
    assert!(code == 1 && said.contains("status 401"), "{said}");
    let auth = format!("{{\"auths\": {{\"127.0.0.1:{port}\": {{\"auth\": \"bWU6c2VjcmV0\"}}}}}}");
    lives_there(&desk, &url, Some(&auth));
}

#[test]
fn a_bucket_is_published_to_and_installed_from() {
    let desk = Desk::new();
    let port = free_port();
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let Some(_daemon) = daemon("a_bucket_is_published_to_and_installed_from", port, &mut command) else {
        return;
    };
    let made = ureq_put(port, "/shop");
    assert!(made, "the bucket could not be made");
    let url = format!("s3://shop/releases?endpoint=http://127.0.0.1:{port}&region=us-east-1");
    lives_there(&desk, &url, Some("key:secret"));
}

/// Makes a bucket.
fn ureq_put(port: u16, path: &str) -> bool {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200")
}
