//! Keys that a machine lends to what runs on it, as the clouds do: against a service of their form.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use cutover::release::source::{self, Settings};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::node::needs_root;
use crate::web::{Asked, Server, item, status};

/// Where machines of clouds are asked.
const PLACE: &str = "169.254.169.254:80";

/// Gives the calling thread a network of its own, in which this test is the cloud; also for names.
fn alone(test: &str) -> bool {
    if !needs_root(test) {
        return false;
    }
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n").unwrap();
    let is_alone = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).is_ok()
        && mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).is_ok()
        && mount::<_, str, str, str>(Some(&hosts), "/etc/hosts", None, MsFlags::MS_BIND, None).is_ok()
        && [&["link", "set", "lo", "up"][..], &["address", "add", "169.254.169.254/32", "dev", "lo"]]
            .iter()
            .all(|words| Command::new("ip").args(*words).status().is_ok_and(|status| status.success()));
    if !is_alone {
        eprintln!("SKIPPED {test}: no network of its own");
    }
    is_alone
}

fn answer(asked: &Asked, stream: &mut TcpStream) -> std::io::Result<()> {
    const KEYS: &str = "{\"AccessKeyId\":\"ID\",\"SecretAccessKey\":\"secret\",\"Token\":\"SESSION\",\
        \"Expiration\":\"2099-01-01T00:00:00Z\"}";
    let has = |name: &str, value: &str| asked.header(name) == Some(value);
    let is_known = has("x-aws-ec2-metadata-token", "TOKEN");
    let text = match (asked.method.as_str(), asked.path.as_str()) {
        ("PUT", "/latest/api/token") if has("x-aws-ec2-metadata-token-ttl-seconds", "300") => "TOKEN",
        ("GET", "/latest/meta-data/iam/security-credentials/") if is_known => "role\n",
        ("GET", "/latest/meta-data/iam/security-credentials/role") if is_known => KEYS,
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token")
            if has("metadata-flavor", "Google") =>
        {
            "{\"access_token\":\"LENT\",\"expires_in\":3599,\"token_type\":\"Bearer\"}"
        }
        ("GET", "/shop/stable.channel") => {
            let authorization = asked.header("authorization").unwrap_or_default();
            let is_signed = authorization.starts_with("AWS4-HMAC-SHA256 Credential=ID/")
                && has("x-amz-security-token", "SESSION");
            match is_signed || authorization == "Bearer LENT" {
                true => "text",
                false => return status(stream, "403 Forbidden", "", b""),
            }
        }
        _ => return status(stream, "404 Not Found", "", b""),
    };
    status(stream, "200 OK", "", text.as_bytes())
}

#[test]
fn a_machine_of_a_cloud_lends_keys_and_is_asked_once() {
    if !alone("a_machine_of_a_cloud_lends_keys_and_is_asked_once") {
        return;
    }
    let server = Server::at(PLACE, answer);
    for (scheme, asks) in [("s3", 3), ("gs", 1)] {
        let before = server.asked().len();
        let url = format!("{scheme}://shop?endpoint=http://{PLACE}");
        let settings = Settings { url: Some(url), retries: 0, ..Settings::default() };
        let source = source::open(&settings).unwrap();
        for _ in 0..3 {
            let text = source.small(item("stable.channel"), 9).unwrap();
            assert_eq!(text.as_deref(), Some(&b"text"[..]), "{scheme}");
        }
        let paths = server.asked().into_iter().skip(before).map(|asked| asked.path);
        let lent = paths.filter(|path| !path.starts_with("/shop/")).count();
        assert_eq!(lent, asks, "{scheme}: keys are kept while they hold");
    }
}
