//! Requests to etcd's JSON gateway: one after the other, each with a time limit, to whichever endpoint answers.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::Arguments;

/// The longest answer: a full listing of the longest names, in base64, with what etcd says about each.
const ANSWER_BYTES_MAX: u64 = 128 << 20;
/// The longest file of certificates or of a password.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A way to one etcd.
pub struct Gateway {
    agent: Agent,
    endpoints: Vec<String>,
    /// The endpoint that answered last.
    current: usize,
    prefix: String,
    login: Option<Login>,
}

struct Login {
    name: String,
    password: String,
    token: Option<String>,
}

/// A key or a value on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'a> Deserialize<'a> for Blob {
    fn deserialize<D: serde::Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What came of a transaction.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// Whether the conditions held.
    #[serde(default)]
    pub succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Default, Deserialize)]
struct Response {
    #[serde(default)]
    response_range: Option<Range>,
}

#[derive(Debug, Default, Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Entry>,
}

/// A key and what it holds.
#[derive(Debug, Default, Deserialize)]
pub struct Entry {
    /// The key.
    #[serde(default)]
    pub key: Blob,
    /// What it holds; empty where only keys were asked for.
    #[serde(default)]
    pub value: Blob,
}

impl Outcome {
    /// What the read number `index` of the transaction found.
    pub fn found(&self, index: usize) -> &[Entry] {
        let range = self.responses.get(index).and_then(|response| response.response_range.as_ref());
        range.map_or(&[], |range| &range.kvs)
    }
}

impl Gateway {
    /// The way that the arguments describe. Asks nobody yet.
    pub fn open(arguments: &Arguments) -> Result<Self, String> {
        let timeout = Duration::from_millis(arguments.timeout_ms);
        let agent = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy of the environment is for the world, not for the fleet's own storage.
            .proxy(None)
            .tls_config(tls(arguments)?)
            .build()
            .new_agent();
        let endpoints: Vec<String> =
            arguments.endpoint.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(odd) = endpoints.iter().find(|url| !is_url(url)) {
            return Err(format!("`{odd}` is not an address: it begins with neither http:// nor https://"));
        }
        let login = match (&arguments.user, &arguments.password_file) {
            (Some(name), Some(file)) => {
                let password = String::from_utf8(read(file)?).map_err(|_| "the password is not UTF-8")?;
                let password = password.trim_end_matches(['\r', '\n']).to_owned();
                Some(Login { name: name.clone(), password, token: None })
            }
            _ => None,
        };
        let prefix = arguments.prefix.trim_end_matches('/').to_owned();
        Ok(Self { agent, endpoints, current: 0, prefix, login })
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// One transaction: if all of `compare` hold, `success` is done, else `failure`.
    pub fn transact(
        &mut self,
        compare: &[Value],
        success: &[Value],
        failure: &[Value],
    ) -> Result<Outcome, String> {
        let request = json!({"compare": compare, "success": success, "failure": failure});
        let answer = self.ask("/v3/kv/txn", &request)?;
        serde_json::from_slice(&answer).map_err(|error| format!("etcd answers something else: {error}"))
    }

    /// The `Date` of an answer: the clock of the endpoint that answers, in whole seconds.
    pub fn date(&mut self) -> Option<String> {
        for _ in 0..self.endpoints.len() {
            let url = format!("{}/version", self.endpoints[self.current]);
            if let Ok(answer) = self.agent.get(url).call() {
                return Some(answer.headers().get("date")?.to_str().ok()?.to_owned());
            }
            self.current = (self.current + 1) % self.endpoints.len();
        }
        None
    }

    fn ask(&mut self, path: &str, request: &Value) -> Result<Vec<u8>, String> {
        let mut why = String::new();
        for _ in 0..self.endpoints.len() {
            match self.ask_current(path, request) {
                Ok(answer) => return Ok(answer),
                Err(error) => why = format!("{}: {error}", self.endpoints[self.current]),
            }
            self.current = (self.current + 1) % self.endpoints.len();
        }
        Err(why)
    }

    fn ask_current(&mut self, path: &str, request: &Value) -> Result<Vec<u8>, String> {
        self.log_in()?;
        match self.post(path, request)? {
            (StatusCode::OK, answer) => Ok(answer),
            // A token has an end; a new one is asked for once.
            (StatusCode::UNAUTHORIZED, _) if self.login.is_some() => {
                if let Some(login) = &mut self.login {
                    login.token = None;
                }
                self.log_in()?;
                match self.post(path, request)? {
                    (StatusCode::OK, answer) => Ok(answer),
                    (status, answer) => Err(said(status, &answer)),
                }
            }
            (status, answer) => Err(said(status, &answer)),
        }
    }

    fn log_in(&mut self) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Authenticated {
            token: String,
        }
        let Some(login) = self.login.as_ref().filter(|login| login.token.is_none()) else { return Ok(()) };
        let request = json!({"name": login.name, "password": login.password});
        let (status, answer) = self.post("/v3/auth/authenticate", &request)?;
        let parsed = serde_json::from_slice::<Authenticated>(&answer).ok();
        let Some(authenticated) = parsed.filter(|_| status == StatusCode::OK) else {
            return Err(format!("cannot log in: {}", said(status, &answer)));
        };
        if let Some(login) = &mut self.login {
            login.token = Some(authenticated.token);
        }
        Ok(())
    }

    fn post(&self, path: &str, request: &Value) -> Result<(StatusCode, Vec<u8>), String> {
        let mut call = self.agent.post(format!("{}{path}", self.endpoints[self.current]));
        if let Some(token) = self.login.as_ref().and_then(|login| login.token.as_ref()) {
            call = call.header("authorization", token);
        }
        let body = request.to_string();
        let answer = call.content_type("application/json").send(body).map_err(|error| error.to_string())?;
        let status = answer.status();
        let mut bytes = Vec::new();
        let mut body = answer.into_body().into_reader().take(ANSWER_BYTES_MAX);
        body.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok((status, bytes))
    }
}

/// What etcd says of an error, in a few words: in JSON, or as plain text.
fn said(status: StatusCode, answer: &[u8]) -> String {
    let told: Option<Value> = serde_json::from_slice(answer).ok();
    let text = match &told {
        Some(told) => told.get("message").or_else(|| told.get("error")).and_then(Value::as_str),
        None => std::str::from_utf8(answer).ok(),
    };
    let text: String = text.unwrap_or_default().trim().chars().take(200).collect();
    if text.is_empty() { format!("etcd answers {status}") } else { text }
}

fn tls(arguments: &Arguments) -> Result<TlsConfig, String> {
    let roots = match &arguments.ca {
        None => RootCerts::PlatformVerifier,
        Some(file) => RootCerts::Specific(Arc::new(certificates(file)?)),
    };
    let client = match (&arguments.cert, &arguments.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKey::from_pem(&read(key)?)
                .map_err(|error| format!("`{}` holds no private key: {error}", key.display()))?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
        _ => None,
    };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).build())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let bytes = read(file)?;
    let mut found = Vec::new();
    for item in parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("`{}` is damaged: {error}", file.display())),
        }
    }
    if found.is_empty() {
        return Err(format!("`{}` holds no certificate", file.display()));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    Ok(bytes)
}
