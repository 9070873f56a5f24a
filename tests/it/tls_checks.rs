//! `http` checks of servers behind TLS, with real handshakes: an authority of our own, a certificate that we show, and
//! certificates that nobody signed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::node::{Health, TestNode};

/// Answers 200 to whoever may ask; prints its port.
const SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words): pass
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
name = "self" if sys.argv[1] == "self" else "server"
context.load_cert_chain(name + ".pem", name + ".key")
if sys.argv[1] == "asks":
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations("ca.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

const CERTIFICATES: &str = "set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \"$@\"; }
new -x509 -days 2 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem
new -x509 -days 2 -subj /CN=other -addext basicConstraints=critical,CA:TRUE -keyout other.key -out other.pem
for name in server client; do
    new -subj /CN=$name -keyout $name.key -out $name.csr
    echo subjectAltName=DNS:localhost >$name.ext
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
done
# As everybody makes them: `openssl req -x509` makes an authority of each.
for name in self twin; do
    new -x509 -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout $name.key -out $name.pem
done
cat client.pem client.key >both.pem";

struct Server(Child, u16);

impl Server {
    fn new(node: &TestNode, kind: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SERVER, kind]).current_dir(node.path("")).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn http_checks_believe_the_certificates_that_the_admin_names() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    let made = Command::new("sh").args(["-c", CERTIFICATES]).current_dir(node.path("")).output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("SKIPPED http_checks_believe_the_certificates_that_the_admin_names: no openssl");
        return;
    }
    let config = fs::read_to_string(node.config()).unwrap();
    let (plain, asking) = (Server::new(&node, "plain"), Server::new(&node, "asks"));
    let own = Server::new(&node, "self");
    let file = |name: &str| format!("'{}'", node.path(name).display());
    let (ca, other, both) = (file("ca.pem"), file("other.pem"), file("both.pem"));
    let (client, key) = (file("client.pem"), file("client.key"));
    for (server, host, more, is_well) in [
        (&plain, "localhost", format!("ca = {ca}"), true),
        (&plain, "localhost", String::new(), false),
        (&plain, "localhost", format!("ca = {other}"), false),
        (&plain, "127.0.0.1", format!("ca = {ca}"), false),
        (&plain, "127.0.0.1", "insecure = true".to_owned(), true),
        (&asking, "localhost", format!("ca = {ca}"), false),
        (&asking, "localhost", format!("ca = {ca}, cert = {client}, key = {key}"), true),
        (&asking, "localhost", format!("ca = {ca}, cert = {both}"), true),
        (&own, "localhost", format!("ca = {}", file("self.pem")), true),
        (&own, "127.0.0.1", format!("ca = {}", file("self.pem")), false),
        (&own, "localhost", format!("ca = {}", file("twin.pem")), false),
    ] {
        let comma = if more.is_empty() { "" } else { "," };
        let check = format!(
            "[[health.check]]\nname = 'tls'\nhttp = {{ url = 'https://{host}:{}/'{comma} {more} }}\n",
            server.1
        );
        fs::write(node.config(), format!("{config}{check}")).unwrap();
        assert_eq!(node.code(&["health"]) == 0, is_well, "{host} {more}");
    }
    // Sources speak TLS in the same way.
    let source = format!("{config}[source]\nurl = 'https://localhost:{}/'\nretries = 0\n", own.1);
    fs::write(node.config(), source).unwrap();
    for (named, code) in [("self.pem", 12), ("twin.pem", 1)] {
        let checked = node.command(&["check"]).env("SSL_CERT_FILE", node.path(named)).output().unwrap();
        assert_eq!(checked.status.code(), Some(code), "{named}: {checked:?}");
    }
}
