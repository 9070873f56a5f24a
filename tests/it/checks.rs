//! Health checks as people write them: addresses that cannot work, answers without an end, and users with groups.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::node::{Health, TestNode, needs_root, text};

#[test]
fn addresses_that_cannot_work_are_refused() {
    let node = TestNode::new(&[Health::Good]);
    let config = fs::read_to_string(node.config()).unwrap();
    let check = |address: &str| {
        let check = format!("[[health.check]]\nname = 'port'\ntcp = {{ address = '{address}' }}\n");
        fs::write(node.config(), format!("{config}{check}")).unwrap();
        node.run(&["config", "check"])
    };
    for address in ["a", "a:http", "a:0", "a:65536", ":80", "::1:80", "http://a:80"] {
        let refused = check(address);
        assert_eq!(refused.status.code(), Some(2), "{address}: {refused:?}");
        assert!(text(&refused.stderr).contains(address), "{address}: {refused:?}");
    }
    for address in ["a:80", "127.0.0.1:80", "[::1]:80"] {
        assert_eq!(check(address).status.code(), Some(0), "{address}");
    }
}

/// Answers 200, and goes on for ever.
fn stream(mut to: TcpStream) -> std::io::Result<()> {
    let _request = to.read(&mut [0; 4096])?;
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
    loop {
        to.write_all(b"data: x\n\n")?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn where_only_the_status_is_asked_an_endless_answer_is_well() {
    let node = TestNode::new(&[Health::Good]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for to in listener.incoming().flatten() {
            std::thread::spawn(|| stream(to));
        }
    });
    node.set("deadline = '20s'", "deadline = '5s'");
    node.add(&format!(
        "[[health.check]]\nname = 'events'\ntimeout = '500ms'\nhttp = {{ url = 'http://127.0.0.1:{port}/' }}\n"
    ));
    assert_eq!(node.update(1), 0);
}

#[test]
fn a_check_that_runs_as_a_user_has_all_of_its_groups() {
    if !needs_root("a_check_that_runs_as_a_user_has_all_of_its_groups") {
        return;
    }
    let node = TestNode::new(&[Health::Good]);
    fs::set_permissions(node.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let groups = fs::read_to_string("/etc/group").unwrap();
    fs::write(node.path("group"), format!("{groups}cutover-test:x:54321:nobody\n")).unwrap();
    node.set("deadline = '20s'", "deadline = '3s'");
    node.add(
        "[[health.check]]\nname = 'groups'\n\
         exec = { command = ['/bin/sh', '-c', 'id -G | grep -qw 54321'], user = 'nobody' }\n",
    );
    let script = "mount --bind \"$0\" /etc/group || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(node.path("group"));
    command.arg(env!("CARGO_BIN_EXE_cutover")).arg("--config").arg(node.config());
    let updated = command.arg("update").arg(node.archive(1)).arg("--allow-unsigned").output().unwrap();
    if updated.status.code() == Some(77) {
        eprintln!("SKIPPED a_check_that_runs_as_a_user_has_all_of_its_groups: may not mount here");
        return;
    }
    assert!(updated.status.success(), "{updated:?}");
}

#[test]
fn what_a_configuration_names_and_is_not_there_is_warned_of() {
    let node = TestNode::new(&[Health::Good]);
    node.add(
        "[[health.check]]\nname = 'smoke'\nexec = { command = ['true'], user = 'nobody-of-that-name' }\n",
    );
    node.add("[source]\nurl = 'http://127.0.0.1:1/'\nallow_unsigned = true\ncredentials = '/no/such/file'\n");
    let checked = node.run(&["config", "check"]);
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    for named in ["nobody-of-that-name", "/no/such/file"] {
        assert!(said.contains(named), "{named}: {said}");
    }
}

#[test]
fn what_can_never_work_is_refused() {
    for more in [
        "[[health.check]]\nname = 'a'\nsystemd = { units = [] }\n",
        "[[health.check]]\nname = 'a'\nexec = { command = ['a'], env = { 'A=B' = 'c' } }\n",
        "[[health.check]]\nname = 'a'\nhttp = { url = 'http://127.0.0.1/a b' }\n",
        "[archive]\nmax_entries = 0\n",
        "[archive]\nmax_bytes = '0B'\n",
    ] {
        let node = TestNode::new(&[]);
        node.add(more);
        let checked = node.run(&["config", "check"]);
        assert_eq!(checked.status.code(), Some(2), "{more}: {}", text(&checked.stderr));
    }
}
