//! What is brought to a place: nothing of another release is lost there, and a server that does not take it is told of.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutover::cli::failure::{Error, failure};
use cutover::release::publish::Error as PublishError;
use cutover::release::source::{self, Settings};
use cutover::release::trust::SignError;
use cutover::sys::disk::Error as DiskError;
use cutover::types::{Size, Span};

use crate::places::{follow, registry};
use crate::refusals::Desk;
use crate::web::{Server, file, status};

#[test]
fn in_a_registry_a_tag_stays_that_of_one_release() {
    let desk = Desk::new();
    let Some((_daemon, port)) = registry("tags", &desk, false) else { return };
    let url = format!("oci://localhost:{port}/shop");
    follow(&desk, &url, "");
    let publish = |version: &str| {
        desk.release(version);
        desk.run(&["publish", "source", version, "--product", "shop", "--key", "team", "--to", &url])
    };
    assert_eq!(publish("2.0~a").0, 0);
    for (version, wanted) in [
        ("2.0+a", "localhost:PORT/shop:2.0_a` is that of `shop-2.0~a.tar.zst, "),
        ("2.0_a", "`shop-2.0_a.manifest` would replace it"),
        ("channel-beta", "shop:channel-beta` is the tag of channel `beta`"),
        ("channel-stable", "is the tag of channel `stable`"),
    ] {
        let (code, said) = publish(version);
        assert!(code == 12 && said.contains(&wanted.replace("PORT", &port.to_string())), "{version}: {said}");
    }
    assert_eq!((desk.update().0, desk.active().as_str()), (0, "2.0~a"), "it is what it was");
}

#[test]
fn what_a_killed_publisher_of_another_user_left_hinders_nobody() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED what_a_killed_publisher_of_another_user_left_hinders_nobody: not root");
        return;
    }
    let (desk, group) = (Desk::new(), 65534);
    let place = desk.path("");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    let program = desk.path("cutover");
    fs::copy(env!("CARGO_BIN_EXE_cutover"), &program).unwrap();
    fs::create_dir(desk.path("to")).unwrap();
    for name in ["source", "to"] {
        std::os::unix::fs::chown(desk.path(name), None, Some(group)).unwrap();
        fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o2775)).unwrap();
    }
    std::os::unix::fs::chown(desk.path("team"), Some(50_002), None).unwrap();
    // As a process leaves them that is killed, whatever its umask.
    for name in ["source/.cutover-publish.lock", "to/.cutover-publish.lock", "to/.shop-1.1.tar.zst.part"] {
        fs::write(desk.path(name), "").unwrap();
        std::os::unix::fs::chown(desk.path(name), Some(50_001), Some(group)).unwrap();
        fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let words: [&[&str]; 2] = [&["publish", "source", "1.1", "--key", "team"], &["copy", "source", "to"]];
    for words in words {
        let mut command = Command::new(&program);
        let run = command.args(words).current_dir(&place).uid(50_002).gid(group).output().unwrap();
        assert!(run.status.success(), "{words:?}: {}", String::from_utf8_lossy(&run.stderr));
    }
    assert!(desk.path("to/stable.channel").exists());
}

#[test]
fn a_lock_can_be_taken_by_others_whatever_the_umask() {
    use cutover::release::exclusive::Exclusive;
    use cutover::sys::disk::Disk;

    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("lock");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let _held = Exclusive::acquire(&Disk::default(), &path, std::time::Duration::ZERO).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_server_that_does_not_take_files_is_told_of_as_it_is() {
    let desk = Desk::new();
    for (answer, wanted) in [
        ("409 Conflict", ["may be missing there", "MKCOL"]),
        ("405 Method Not Allowed", ["takes no files at this address", "`PUT`"]),
        ("413 Content Too Large", ["takes no files of this size", "of that size"]),
        ("507 Insufficient Storage", ["has no room", "make room on the server"]),
        ("403 Forbidden", ["status 403", "who may write there"]),
    ] {
        let server = Server::new(move |asked, stream| match asked.method.as_str() {
            "PUT" => status(stream, answer, "", b""),
            _ => status(stream, "404 Not Found", "", b""),
        });
        let (code, said) = desk.run(&["publish", "source", "1.1", "--key", "team", "--to", &server.url()]);
        assert!(code == 1 && wanted.iter().all(|part| said.contains(part)), "{answer}: {code}: {said}");
        assert!(!said.contains("somebody else") && !said.contains("cannot read"), "{answer}: {said}");
    }
    // The channel's own directory may be missing, too: then a condition was sent.
    let kept = Mutex::new(HashMap::new());
    let server = Server::new(move |asked, stream| {
        let is_channel = asked.path.contains("channel");
        match asked.method.as_str() {
            "PUT" if is_channel => status(stream, "409 Conflict", "", b""),
            "PUT" => {
                kept.lock().unwrap().insert(asked.path.clone(), asked.body.clone());
                status(stream, "201 Created", "", b"")
            }
            _ => match kept.lock().unwrap().get(&asked.path) {
                Some(bytes) => file(asked, stream, bytes, "\"1\"", usize::MAX),
                None => status(stream, "404 Not Found", "", b""),
            },
        }
    });
    let (code, said) = desk.run(&["copy", "source", &server.url()]);
    assert!(code == 1 && said.contains("stable.channel.next`") && said.contains("MKCOL"), "{code}: {said}");
}

#[test]
fn a_server_that_keeps_nothing_has_not_brought_it() {
    let desk = Desk::new();
    let server = Server::new(|asked, stream| match asked.method.as_str() {
        "PUT" => status(stream, "200 OK", "", b"<html>Sign in</html>"),
        _ => status(stream, "404 Not Found", "", b""),
    });
    let (code, said) = desk.run(&["publish", "source", "1.1", "--key", "team", "--to", &server.url()]);
    assert!(code == 1 && said.contains("is not there as it was brought"), "{code}: {said}");
    assert!(!server.asked().iter().any(|asked| asked.method == "PUT" && asked.path.contains("channel")));
}

#[test]
fn a_place_that_says_403_names_the_right_to_list() {
    let desk = Desk::new();
    let server = Server::new(|_, stream| status(stream, "403 Forbidden", "", b"AccessDenied"));
    let (code, said) = desk.run(&["publish", "source", "1.1", "--key", "team", "--to", &server.url()]);
    let wanted = ["status 403", "s3:ListBucket", "`--credentials`"];
    assert!(code == 1 && wanted.iter().all(|part| said.contains(part)), "{code}: {said}");
    assert!(!said.contains("[source]"), "{said}");
}

#[test]
fn a_signature_that_is_not_there_yet_is_looked_for_again() {
    type Fault = fn(&[u8]) -> Option<Vec<u8>>;
    let faults: [(&str, Fault); 4] = [
        ("missing", |_| None),
        ("empty", |_| Some(Vec::new())),
        ("cut", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("cut before its last line ends", |bytes| Some(bytes[..bytes.len() - 1].to_vec())),
    ];
    for (name, fault) in faults {
        let desk = Desk::new();
        let (source, count) = (desk.path("source"), AtomicUsize::new(0));
        let server = Server::new(move |asked, stream| {
            let bytes = fs::read(source.join(asked.path.rsplit('/').next().unwrap())).ok();
            let is_faulty = asked.path.ends_with(".channel.sig") && count.fetch_add(1, Ordering::SeqCst) == 0;
            match if is_faulty { fault(&bytes.unwrap()) } else { bytes } {
                Some(bytes) => file(asked, stream, &bytes, "\"1\"", usize::MAX),
                None => status(stream, "404 Not Found", "", b""),
            }
        });
        follow(&desk, &server.url(), "");
        let (code, said) = desk.run(&["--config", "node.toml", "check"]);
        assert_eq!(code, 0, "{name}: {said}");
    }
}

#[test]
fn a_page_in_place_of_a_file_is_called_one() {
    for page_of in ["stable.channel", "stable.channel.sig", "shop-1.1.manifest", "shop-1.1.manifest.sig"] {
        let desk = Desk::new();
        let source = desk.path("source");
        let server = Server::new(move |asked, stream| match asked.path.rsplit('/').next().unwrap() {
            name if name == page_of => {
                status(stream, "200 OK", "", b"\n<!DOCTYPE html><title>Log in</title>")
            }
            name => match fs::read(source.join(name)) {
                Ok(bytes) => file(asked, stream, &bytes, "\"1\"", usize::MAX),
                Err(_) => status(stream, "404 Not Found", "", b""),
            },
        });
        follow(&desk, &server.url(), "");
        let (code, said) = desk.update();
        let wanted = format!("{page_of}` is a page of the web");
        assert!(code == 12 && said.contains(&wanted) && said.contains("login"), "{page_of}: {code}: {said}");
    }
}

#[test]
fn settings_of_a_source_that_cannot_work_are_refused() {
    let none = Span::seconds(0);
    let good = Settings::default;
    for (settings, wanted) in [
        (Settings { rate_limit: Some(Size(0)), ..good() }, "`rate_limit` must be at least 1 byte"),
        (Settings { connect_timeout: none, ..good() }, "must be longer than zero"),
        (Settings { stall_timeout: none, ..good() }, "must be longer than zero"),
    ] {
        let error = source::check(&settings).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(source::check(&Settings { rate_limit: Some(Size(1)), ..good() }).is_ok());
    let desk = Desk::new();
    follow(&desk, "http://localhost:1/shop", "credentials = \"/nowhere\"");
    let (_, said) = desk.run(&["--config", "node.toml", "check"]);
    assert!(
        said.contains("`/nowhere` is not a file of credentials") && said.contains("`credentials`"),
        "{said}"
    );
}

#[test]
fn a_copy_from_far_away_says_where_it_needs_room() {
    let desk = Desk::new();
    fs::create_dir(desk.path("to")).unwrap();
    let source = desk.path("source");
    let server = Server::new(move |asked, stream| {
        match fs::read(source.join(asked.path.rsplit('/').next().unwrap())) {
            Ok(bytes) => file(asked, stream, &bytes, "\"1\"", usize::MAX),
            Err(_) => status(stream, "404 Not Found", "", b""),
        }
    });
    let copy = |directory: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.args(["copy", &server.url(), "to"]).env("TMPDIR", directory).current_dir(desk.path(""));
        let run = command.output().unwrap();
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (code, said) = copy("/nonexistent");
    assert!(code == Some(1) && said.contains("into `/nonexistent`") && said.contains("`TMPDIR`"), "{said}");
    assert_eq!(copy("/tmp").0, Some(0));
}

#[test]
fn the_files_of_whoever_publishes_are_no_matter_of_a_node() {
    let read_only = || {
        DiskError::new("write", "/srv/releases/x".as_ref(), std::io::Error::from_raw_os_error(libc::EROFS))
    };
    for error in [Error::Publish(PublishError::Disk(read_only())), Error::Sign(SignError::Disk(read_only()))]
    {
        let hint = failure(&error).hint.unwrap();
        assert!(!hint.contains("recover") && hint.contains("can be written"), "{hint}");
    }
    let desk = Desk::new();
    let archive = "source/shop-1.1.tar.zst";
    let (code, said) = desk.run(&["pack", "app", "--product", "shop", "--version", "1.1", "-o", archive]);
    assert!(code == 2 && !said.contains("is replaced"), "{said}");
}

#[test]
fn an_archive_with_a_dictionary_is_refused_as_one() {
    let desk = Desk::new();
    // A frame whose header names dictionary 7, with one block of 512 bytes.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x00, 0x07, 0x01, 0x10, 0x00];
    bytes.extend([0; 512]);
    fs::write(desk.path("shop-3.tar.zst"), bytes).unwrap();
    let (code, said) = desk.run(&["--config", "node.toml", "update", "shop-3.tar.zst", "--allow-unsigned"]);
    assert!(
        code == 12 && said.contains("compressed with a dictionary") && said.contains("-D"),
        "{code}: {said}"
    );
}
