//! Releases where they live: published to a registry, a bucket and a web server, and installed from there, for real.

use std::collections::HashMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::release::source::{self, Error, Settings};
use cutover::types::Digest;

use crate::refusals::Desk;
use crate::web::{SIZE, Server, archive, fetch, file, item, status};

/// A server of this test; it ends with it.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server that listens at this port soon; `None` when the program is not here.
pub fn daemon(test: &str, port: u16, command: &mut Command) -> Option<Daemon> {
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
pub fn registry(test: &str, desk: &Desk, password: bool) -> Option<(Daemon, u16)> {
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
pub fn follow(desk: &Desk, url: &str, more: &str) {
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
    assert_eq!(names("stick"), 7, "{url}: archive, manifest, channel, what comes next, three signatures");
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

/// Runs a tool that is not ours; nothing where it is not here.
fn other(test: &str, desk: &Desk, program: &str, words: &[&str]) -> Option<()> {
    let Ok(done) = Command::new(program).args(words).current_dir(desk.path("source")).output() else {
        eprintln!("SKIPPED {test}: no {program}");
        return None;
    };
    assert!(done.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    Some(())
}

/// What cutover has published is an artifact like any other: skopeo copies it to a directory, each file by its digest.
#[test]
fn skopeo_reads_what_was_published_to_a_registry() {
    let test = "skopeo_reads_what_was_published_to_a_registry";
    let desk = Desk::new();
    let Some((_daemon, port)) = registry(test, &desk, false) else { return };
    let url = format!("oci://127.0.0.1:{port}/team/shop");
    desk.well(&["publish", "source", "1.1", "--product", "shop", "--key", "team", "--to", &url]);
    for (tag, files) in [
        ("1.1", &["shop-1.1.tar.zst", "shop-1.1.manifest", "shop-1.1.manifest.sig"][..]),
        ("channel-stable", &["stable.channel", "stable.channel.sig"]),
    ] {
        let from = format!("docker://127.0.0.1:{port}/team/shop:{tag}");
        let copied = desk.path(tag);
        let to = format!("dir:{}", copied.display());
        let words = ["copy", "--src-tls-verify=false", "--insecure-policy", &from, &to];
        let Some(()) = other(test, &desk, "skopeo", &words) else { return };
        for file in files {
            let wanted = fs::read(desk.source(file)).unwrap();
            let blob = copied.join(Digest::of(&wanted).hex());
            assert!(fs::read(&blob).is_ok_and(|bytes| bytes == wanted), "{tag}: {file}");
        }
    }
}

/// And a release whose files somebody else has pushed, with the client of the ORAS project, is one that nodes take.
#[test]
fn a_release_that_oras_has_pushed_is_installed() {
    const PUSH: &str = "import sys, oras.client
oras.client.OrasClient(insecure=True).push(target=sys.argv[1], files=sys.argv[2:], quiet=True)";
    let test = "a_release_that_oras_has_pushed_is_installed";
    if !Command::new("python3")
        .args(["-c", "import oras.client"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        eprintln!("SKIPPED {test}: no oras for python3");
        return;
    }
    let desk = Desk::new();
    let Some((_daemon, port)) = registry(test, &desk, false) else { return };
    for (tag, files) in [
        ("1.1", &["shop-1.1.tar.zst", "shop-1.1.manifest", "shop-1.1.manifest.sig"][..]),
        ("channel-stable", &["stable.channel", "stable.channel.sig"]),
    ] {
        let target = format!("127.0.0.1:{port}/team/shop:{tag}");
        let mut words = vec!["-c", PUSH, &target];
        words.extend(files);
        other(test, &desk, "python3", &words).unwrap();
    }
    follow(&desk, &format!("oci://127.0.0.1:{port}/team/shop"), "");
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, "1.1"), "{said}");
}

/// A server of object stores, with the bucket `shop`.
pub fn bucket(test: &str) -> Option<(Daemon, u16)> {
    let port = free_port();
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let daemon = daemon(test, port, &mut command)?;
    assert!(ureq_put(port, "/shop"), "the bucket could not be made");
    Some((daemon, port))
}

#[test]
fn a_bucket_is_published_to_and_installed_from() {
    let desk = Desk::new();
    let Some((_daemon, port)) = bucket("a_bucket_is_published_to_and_installed_from") else { return };
    let url = format!("s3://shop/releases?endpoint=http://127.0.0.1:{port}&region=us-east-1");
    lives_there(&desk, &url, Some("key:secret"));
}

/// The key that every azurite has, as an account's credentials.
pub const AZURITE: &str = "devstoreaccount1:Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server as Azure's is, with the container `box`.
pub fn container(test: &str, desk: &Desk) -> Option<(Daemon, u16)> {
    let port = free_port();
    fs::create_dir(desk.path("azure")).unwrap();
    let mut command = Command::new("azurite-blob");
    command.args([
        "--silent",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--blobPort",
        &port.to_string(),
        "--location",
    ]);
    command.arg(desk.path("azure"));
    let daemon = daemon(test, port, &mut command)?;
    let key = AZURITE.split_once(':').unwrap().1;
    let account = format!("http://127.0.0.1:{port}/devstoreaccount1");
    let script = format!(
        "set -e
        date=$(date -u +'%a, %d %b %Y %H:%M:%S GMT')
        text=$(printf 'PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:%s\nx-ms-version:2021-08-06\n\
/devstoreaccount1/devstoreaccount1/box\nrestype:container' \"$date\")
        key=$(printf %s '{key}' | base64 -d | od -An -vtx1 | tr -d ' \n')
        sign=$(printf %s \"$text\" | openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary | base64)
        curl -fsS -X PUT -H \"x-ms-date: $date\" -H 'x-ms-version: 2021-08-06' -H 'Content-Length: 0' \
            -H \"Authorization: SharedKey devstoreaccount1:$sign\" '{account}/box?restype=container'"
    );
    let made = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some((daemon, port))
}

#[test]
fn a_container_of_azure_is_published_to_and_installed_from() {
    let desk = Desk::new();
    let test = "a_container_of_azure_is_published_to_and_installed_from";
    let Some((_daemon, port)) = container(test, &desk) else { return };
    let account = "devstoreaccount1";
    let url = format!("az://box/releases?account={account}&endpoint=http://127.0.0.1:{port}/{account}");
    lives_there(&desk, &url, Some(AZURITE));
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

/// A registry that sends whoever asks to get a token; each holds for three requests.
#[test]
fn tokens_are_got_where_the_registry_says_and_anew() {
    let bytes = archive();
    let artifact = format!(
        "{{\"schemaVersion\":2,\"layers\":[{{\"mediaType\":\"x\",\"digest\":\"{}\",\"size\":{SIZE},\
         \"annotations\":{{\"org.opencontainers.image.title\":\"shop-1.tar\"}}}}]}}",
        Digest::of(&bytes)
    );
    let (served, given, used) = (bytes.clone(), AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::new(move |asked, stream| {
        if let Some(query) = asked.path.strip_prefix("/token?") {
            let is_known = asked.header("authorization") == Some("Basic bWU6c2VjcmV0");
            if !is_known || query != "service=here&scope=repository%3Ateam%2Fshop%3Apull" {
                return status(stream, "403 Forbidden", "", b"");
            }
            used.store(0, Ordering::SeqCst);
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            return status(stream, "200 OK", "", format!("{{\"token\":\"T{number}\"}}").as_bytes());
        }
        let wanted = format!("Bearer T{}", given.load(Ordering::SeqCst));
        let is_good =
            asked.header("authorization") == Some(&wanted) && used.fetch_add(1, Ordering::SeqCst) < 3;
        if !is_good {
            let place = asked.header("host").unwrap();
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{place}/token\",service=\"here\",\
                 scope=\"repository:team/shop:pull\"\r\n"
            );
            return status(stream, "401 Unauthorized", &challenge, b"");
        }
        match asked.path.strip_prefix("/v2/team/shop/") {
            Some("manifests/1") => status(stream, "200 OK", "", artifact.as_bytes()),
            Some(path) if path.starts_with("blobs/sha256:") => file(asked, stream, &served, "\"1\"", 200_000),
            _ => status(stream, "404 Not Found", "", b""),
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    fs::write(&credentials, "me:secret").unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let url = server.url().replace("http://", "oci://").replace("/shop", "/team/shop");
    let settings = Settings {
        url: Some(url),
        credentials: Some(credentials.to_str().unwrap().to_owned()),
        retries: 3,
        ..Settings::default()
    };
    let source = source::open(&settings).unwrap();
    assert!(fetch(source.as_ref(), &bytes).unwrap() == bytes);
    assert!(source.small(item("other"), 9).unwrap().is_none(), "no such file in the artifact");
    let tokens = server.asked().iter().filter(|asked| asked.path.starts_with("/token")).count();
    assert!(tokens >= 3, "{tokens}");
    let stranger = source::open(&Settings { credentials: None, ..settings }).unwrap();
    assert!(matches!(stranger.small(item("shop-1.tar"), 9), Err(Error::Status { status: 403, .. })));
}

/// A web server that takes files, and keeps conditions.
#[test]
fn of_two_publishers_at_once_one_is_told() {
    let desk = Desk::new();
    let kept: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
    let (files, is_meddling, loses) =
        (Arc::clone(&kept), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let meddles = Arc::clone(&is_meddling);
    let server = Server::new(move |asked, stream| {
        let mut files = files.lock().unwrap();
        let there = files.get(&asked.path).cloned();
        let tag = |bytes: &[u8]| format!("\"{}\"", Digest::of(bytes).hex());
        if asked.method == "PUT" {
            // Another one is quicker, after this one has looked.
            if asked.path.ends_with(".tar.zst") && meddles.load(Ordering::SeqCst) {
                for name in ["stable.channel.next", "stable.channel.sig", "stable.channel"] {
                    files.insert(format!("/shop/{name}"), format!("another {name}").into_bytes());
                }
            }
            let is_refused = match (asked.header("if-none-match"), asked.header("if-match")) {
                (Some("*"), _) => there.is_some(),
                (_, Some(wanted)) => there.as_deref().map(tag).as_deref() != Some(wanted),
                _ => false,
            };
            if is_refused {
                return status(stream, "412 Precondition Failed", "", b"");
            }
            files.insert(asked.path.clone(), asked.body.clone());
            // An answer that is lost: the file is sent again, and is there already.
            if asked.path.ends_with(".channel.next") && loses.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            return status(stream, "201 Created", "", b"");
        }
        drop(files);
        match there {
            Some(bytes) => file(asked, stream, &bytes, &tag(&bytes), usize::MAX),
            None => status(stream, "404 Not Found", "", b""),
        }
    });
    lives_there(&desk, &server.url(), None);
    let mut order: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| asked.method == "PUT")
        .map(|asked| asked.path.rsplit('/').next().unwrap().to_owned())
        .collect();
    let wanted = [
        "shop-1.1.tar.zst",
        "shop-1.1.manifest.sig",
        "shop-1.1.manifest",
        "stable.channel.next",
        "stable.channel.next.sig",
        "stable.channel.sig",
        "stable.channel",
    ];
    order.dedup();
    assert_eq!(order[..7], wanted, "{order:?}");
    is_meddling.store(true, Ordering::SeqCst);
    desk.release("1.3");
    let url = server.url();
    let words = ["publish", "source", "1.3", "--product", "shop", "--key", "team", "--to", &url];
    let (code, said) = desk.run(&words);
    assert!(code == 1 && said.contains("somebody else publishes there"), "{code}: {said}");
    for name in ["stable.channel.next", "stable.channel.sig", "stable.channel"] {
        let found = kept.lock().unwrap()[&format!("/shop/{name}")].clone();
        assert_eq!(found, format!("another {name}").into_bytes(), "what the quicker one wrote stays");
    }
}

/// A certificate of an authority of this test's, for this name.
fn certificate(desk: &Desk, name: &str) -> bool {
    let script = format!(
        "set -e
        [ -f ca.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
            -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr
        printf 'subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth\n' >{name}.ext
        openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
    );
    let done = Command::new("sh").args(["-c", &script]).current_dir(desk.path(".")).output();
    done.is_ok_and(|done| done.status.success())
}

#[test]
fn behind_tls_with_two_servers_a_release_is_installed_and_other_names_are_refused() {
    let desk = Desk::new();
    let test = "behind_tls_with_two_servers_a_release_is_installed_and_other_names_are_refused";
    if !certificate(&desk, "localhost") || !certificate(&desk, "other.example") {
        eprintln!("SKIPPED {test}: no openssl");
        return;
    }
    let (port, wrong) = (free_port(), free_port());
    let (one, two) = (free_port(), free_port());
    let place = desk.path(".").canonicalize().unwrap();
    // Another copy, with other times: another `ETag` and `Last-Modified`.
    let copied = Command::new("cp").args(["-r", "source", "source2"]).current_dir(&place).status().unwrap();
    assert!(copied.success());
    fs::create_dir(place.join("nginx")).unwrap();
    let server = |port: u16, name: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {0}/{name}.pem; ssl_certificate_key {0}/{name}.key;
              location / {{ proxy_pass http://both; }} }}",
            place.display()
        )
    };
    let back = |port: u16, folder: &str| {
        format!("server {{ listen 127.0.0.1:{port}; root {}/{folder}; }}", place.display())
    };
    let text = format!(
        "daemon off; master_process off; pid {0}/nginx/pid; error_log {0}/nginx/log;
        events {{}}
        http {{ access_log off; client_body_temp_path {0}/nginx/a; proxy_temp_path {0}/nginx/b;
        fastcgi_temp_path {0}/nginx/c; uwsgi_temp_path {0}/nginx/d; scgi_temp_path {0}/nginx/e;
        upstream both {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; }} {1} {2} {3} {4} }}",
        place.display(),
        server(port, "localhost"),
        server(wrong, "other.example"),
        back(one, "source"),
        back(two, "source2"),
    );
    fs::write(place.join("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(place.join("nginx.conf"));
    let Some(_daemon) = daemon(test, port, &mut command) else { return };
    let update = |url: &str, authority: &str| {
        let text = fs::read_to_string(desk.path("node.toml")).unwrap();
        let line = text.lines().find(|line| line.starts_with("url")).unwrap();
        fs::write(desk.path("node.toml"), text.replace(line, &format!("url = \"{url}\"\nretries = 0")))
            .unwrap();
        let done = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(["--config", "node.toml", "update"])
            .env("SSL_CERT_FILE", place.join(authority))
            .current_dir(&place)
            .output()
            .unwrap();
        fs::write(desk.path("node.toml"), text).unwrap();
        (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    for (url, authority) in [
        (format!("https://localhost:{wrong}"), "ca.pem"),
        (format!("https://127.0.0.1:{port}"), "ca.pem"),
        (format!("https://localhost:{port}"), "other.example.pem"),
    ] {
        let (code, said) = update(&url, authority);
        assert_eq!((code, desk.active().as_str()), (1, "1.0"), "{url}: {said}");
    }
    let (code, said) = update(&format!("https://localhost:{port}"), "ca.pem");
    assert_eq!((code, desk.active().as_str()), (0, "1.1"), "{said}");
}
