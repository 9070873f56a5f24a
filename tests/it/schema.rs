//! `status --json` is what `docs/status.schema.json` says, in every state that a test can bring about, and the schema
//! names every key that comes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// As much of JSON Schema as our schema uses. Strict in one more thing: a key that it does not name is an error.
fn check(root: &Value, schema: &Value, value: &Value, place: &str, errors: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return check(root, target, value, place, errors);
    }
    if let Some(allowed) = schema["enum"].as_array() {
        if !allowed.contains(value) {
            errors.push(format!("{place}: {value} is none of {allowed:?}"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{place}: the schema says no type"),
    };
    if !allowed.contains(&kind) {
        errors.push(format!("{place}: {value} is {kind}, not {allowed:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        check(root, &schema["items"], item, &format!("{place}[]"), errors);
    }
    let Some(object) = value.as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            errors.push(format!("{place}: no `{required}`"));
        }
    }
    for (key, inner) in object {
        match schema["properties"].get(key) {
            Some(known) => check(root, known, inner, &format!("{place}.{key}"), errors),
            None => errors.push(format!("{place}: the schema does not name `{key}`")),
        }
    }
}

/// A status is what the schema says.
#[track_caller]
pub fn assert_valid(when: &str, status: &Value) {
    let mut errors = Vec::new();
    let schema = schema();
    check(&schema, &schema, status, "status", &mut errors);
    assert!(errors.is_empty(), "{when}: {errors:#?}\n{status:#}");
}

/// A node in a temporary directory, with its file of settings and a place for releases.
struct Node {
    directory: tempfile::TempDir,
}

impl Node {
    fn new(more: &str) -> Self {
        let node = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["data", "root"] {
            fs::create_dir(node.path(name)).unwrap();
        }
        let settings =
            format!("root = \"{}\"\n[store]\nreserve = \"1MiB\"\n{more}", node.path("root").display());
        fs::write(node.path("shop.toml"), settings).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .arg("--config")
            .arg(self.path("shop.toml"))
            .args(words)
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Packs a release whose one file says the version, and updates to it.
    fn update(&self, version: &str) -> i32 {
        fs::create_dir_all(self.path(version)).unwrap();
        fs::write(self.path(version).join("VERSION"), version).unwrap();
        let archive = format!("shop-{version}.tar.zst");
        let (code, _, error) =
            self.run(&["pack", version, "--product", "shop", "--version", version, "-o", &archive]);
        assert_eq!(code, 0, "{error}");
        let (code, _, error) = self.run(&["update", &archive, "--allow-unsigned"]);
        eprintln!("update {version}: {code}: {error}");
        code
    }

    /// The status, after it has been held against the schema.
    fn status(&self, when: &str) -> Value {
        let (code, out, error) = self.run(&["status", "--json"]);
        assert_eq!(code, 0, "{when}: {error}");
        let status: Value = serde_json::from_str(&out).unwrap();
        assert_valid(when, &status);
        status
    }
}

#[test]
fn the_status_is_what_the_schema_says() {
    let node = Node::new("[[data]]\npath = \"DATA\"\n");
    let settings = fs::read_to_string(node.path("shop.toml")).unwrap();
    fs::write(node.path("shop.toml"), settings.replace("DATA", node.path("data").to_str().unwrap())).unwrap();
    assert_eq!(node.status("before the first release")["state"], "idle");
    assert_eq!(node.update("1.0.0"), 0);
    assert_eq!(node.status("with one release")["active"]["version"], "1.0.0");
    assert_eq!(node.update("1.1.0"), 0);
    assert_eq!(node.status("with two releases")["previous"]["version"], "1.0.0");
    assert_eq!(node.run(&["pin", "1.0.0"]).0, 0);
    assert_eq!(node.run(&["rollback", "--reason", "a test"]).0, 0);
    let status = node.status("after a rollback");
    assert_eq!(status["active"]["version"], "1.0.0");
    assert_eq!(status["blocked"][0]["policy"], "hold");
    assert_eq!(status["last"]["outcome"], "rolled_back");
}

#[test]
fn the_status_of_a_sick_release_is_what_the_schema_says() {
    let node = Node::new(
        "[health]\nmin_healthy = '200ms'\ndeadline = '5s'\ninterval = '50ms'\nfail_threshold = 2\nstartup = '0s'\n\
         [[health.check]]\nname = 'file'\nfile = { path = 'VERSION', contains = '1.0.0' }\n",
    );
    assert_eq!(node.update("1.0.0"), 0);
    assert_eq!(node.update("2.0.0"), 10);
    let status = node.status("after a sick release");
    assert_eq!(status["bad"][0]["release"]["version"], "2.0.0");
    assert_eq!(status["last"]["exit_code"], 10);
}

#[test]
fn the_schema_notices_what_is_wrong() {
    let schema = schema();
    for (change, wanted) in [
        ("{}", "no `api_version`"),
        (r#"{"api_version": 2}"#, "is none of"),
        (r#"{"no_such_key": 1}"#, "does not name"),
        (r#"{"disk": {"free": "much"}}"#, "is string"),
    ] {
        let mut errors = Vec::new();
        check(&schema, &schema, &serde_json::from_str(change).unwrap(), "status", &mut errors);
        assert!(errors.iter().any(|error| error.contains(wanted)), "{change}: {errors:?}");
    }
}

#[test]
fn history_metrics_and_page_tell_the_same_outcomes() {
    let node = Node::new("[metrics]\ntextfile = \"TEXTFILE\"\n");
    let settings = fs::read_to_string(node.path("shop.toml")).unwrap();
    fs::write(node.path("shop.toml"), settings.replace("TEXTFILE", node.path("shop.prom").to_str().unwrap()))
        .unwrap();
    assert_eq!(node.update("1.0.0"), 0);
    assert_eq!(node.update("1.1.0"), 0);
    assert_eq!(node.run(&["rollback", "--reason", "a test"]).0, 0);
    let (code, log, _) = node.run(&["log", "--json"]);
    assert_eq!(code, 0);
    let log: Value = serde_json::from_str(&log).unwrap();
    let transaction = log[0]["transaction"].as_str().unwrap();
    let metrics = fs::read_to_string(node.path("shop.prom")).unwrap();
    for line in [
        "cutover_updates_total{app=\"shop\",outcome=\"committed\"} 2",
        "cutover_updates_total{app=\"shop\",outcome=\"rolled_back\"} 1",
        "cutover_hold{app=\"shop\"} 1",
        "cutover_blocked{app=\"shop\",policy=\"hold\"} 1",
        &format!(
            "cutover_last_outcome{{app=\"shop\",outcome=\"rolled_back\",from=\"1.0.0\",to=\"1.1.0\",transaction=\"{transaction}\"}} 1"
        ),
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(node.run(&["report", "--html", "page.html"]).0, 0);
    let page = fs::read_to_string(node.path("page.html")).unwrap();
    for wanted in [transaction, "rolled back", "committed", "a test"] {
        assert!(page.contains(wanted), "{wanted}");
    }
}
