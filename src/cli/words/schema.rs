//! A JSON schema of the configuration: its keys and what they mean are those of README's table (which tests hold against
//! the program), its types those of the values that the program has by itself.

use serde_json::{Map, Value, json};

use crate::lifecycle::settings::Settings;

const README: &str = include_str!("../../../README.md");

pub fn schema() -> Value {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let mut root = object("a cutover application: see cutover.toml(5)");
    let mut table = Vec::new();
    for line in table_lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [key, default, means] = cells.as_slice() else { continue };
        if let Some(head) = key.strip_prefix("**`").and_then(|key| key.strip_suffix("`**")) {
            table = head.trim_matches(['[', ']']).split('.').map(str::to_owned).collect();
            let place = place(&mut root, &table, head.starts_with("[["));
            place["description"] = json!(plain(means));
            continue;
        }
        for key in key.split('`').skip(1).step_by(2) {
            let known = table
                .iter()
                .try_fold(&defaults, |value, part| value.get(part))
                .and_then(|table| table.get(key));
            let mut value = of_default(known);
            value["description"] = json!(if default.is_empty() {
                plain(means)
            } else {
                format!("{} (default: {})", plain(means), plain(default))
            });
            let words = words_of(means);
            if value["type"] == "string"
                && words.len() > 1
                && known.and_then(Value::as_str).is_some_and(|known| words.contains(&known))
            {
                value["enum"] = json!(words);
            }
            place(&mut root, &table, false)["properties"][key] = value;
        }
    }
    // Names in the tree, and where they lead.
    root["properties"]["links"]["additionalProperties"] = json!({"type": "string"});
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("cutover.toml");
    root
}

/// The lines of README's table of settings.
fn table_lines() -> impl Iterator<Item = &'static str> {
    let section = README.split("\n## Configuration\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| ")).skip(2)
}

fn object(description: &str) -> Value {
    json!({"type": "object", "description": description, "properties": {}, "additionalProperties": false})
}

/// The object of a table, made if need be; of an array of tables, the object of one of them.
fn place<'a>(root: &'a mut Value, table: &[String], is_array: bool) -> &'a mut Value {
    let mut here = root;
    for (number, part) in table.iter().enumerate() {
        let is_last = number + 1 == table.len();
        let properties = &mut here["properties"];
        let is_missing = properties
            .get(part)
            .is_none_or(|known| known.get("properties").is_none() && known.get("items").is_none());
        if is_missing {
            let new = object("");
            properties[part] = if is_array && is_last { json!({"type": "array", "items": new}) } else { new };
        }
        let next = &mut properties[part];
        here = if next.get("items").is_some() { &mut next["items"] } else { next };
    }
    here
}

/// What a value of this key may be, from the one that it has by itself.
fn of_default(known: Option<&Value>) -> Value {
    match known {
        Some(Value::Bool(_)) => json!({"type": "boolean"}),
        Some(Value::Number(_)) => json!({"type": "integer"}),
        Some(Value::String(_)) => json!({"type": "string"}),
        Some(Value::Array(_)) => json!({"type": "array"}),
        Some(Value::Object(_) | Value::Null) | None => Value::Object(Map::new()),
    }
}

/// The words of "`a`, `b` or `c`" at the begin of a text.
fn words_of(means: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = means;
    while let Some(after) = rest.strip_prefix('`') {
        let Some((word, after)) = after.split_once('`') else { break };
        words.push(word);
        rest = after.strip_prefix(", ").or_else(|| after.strip_prefix(" or ")).unwrap_or("");
    }
    words
}

/// Without what only Markdown needs.
fn plain(text: &str) -> String {
    let text = text.trim_matches('*');
    let mut plain = String::new();
    let mut rest = text;
    // `[words](address)` is told as its words.
    while let Some((before, link)) = rest.split_once("](") {
        let (before, words) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(before);
        plain.push_str(words);
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and types of a configuration, held against the schema.
    fn check(schema: &Value, value: &toml::Value, place: &str, errors: &mut Vec<String>) {
        let kind = match value {
            toml::Value::Table(_) => "object",
            toml::Value::Array(_) => "array",
            toml::Value::String(_) | toml::Value::Datetime(_) => "string",
            toml::Value::Boolean(_) => "boolean",
            toml::Value::Integer(_) | toml::Value::Float(_) => "integer",
        };
        let is_kind = schema["type"].as_str().is_none_or(|wanted| wanted == kind);
        if !is_kind {
            errors.push(format!("{place}: {value} is no {}", schema["type"]));
        }
        if let (Some(words), Some(text)) = (schema["enum"].as_array(), value.as_str())
            && !words.contains(&json!(text))
        {
            errors.push(format!("{place}: {text} is none of {words:?}"));
        }
        match value {
            toml::Value::Table(table) if schema["properties"].is_object() => {
                for (key, value) in table {
                    let place = format!("{place}.{key}");
                    match schema["properties"].get(key).or_else(|| schema.get("additionalProperties")) {
                        Some(schema) if *schema != json!(false) => check(schema, value, &place, errors),
                        _ => errors.push(format!("{place}: unknown")),
                    }
                }
            }
            toml::Value::Array(items) if schema["items"].is_object() => {
                for item in items {
                    check(&schema["items"], item, place, errors);
                }
            }
            _ => {}
        }
    }

    fn errors(text: &str) -> Vec<String> {
        let mut errors = Vec::new();
        check(&schema(), &toml::Value::Table(text.parse().unwrap()), "", &mut errors);
        errors
    }

    #[test]
    fn what_the_program_takes_the_schema_takes_and_slips_it_finds() {
        let none: Vec<String> = Vec::new();
        assert_eq!(errors(include_str!("../../../packaging/shop.toml")), none);
        let all = toml::to_string(&Settings::default()).unwrap();
        assert_eq!(errors(&all), none);
        for slip in [
            "rot = '/srv/shop'",
            "[store]\nkeep = 'five'",
            "[store]\nmethod = 'magic'",
            "[[health.check]]\nnam = 'x'",
            "[fleet]\nmode = 'together'",
        ] {
            assert_eq!(errors(slip).len(), 1, "{slip}: {:?}", errors(slip));
        }
        let words = schema()["properties"]["health"]["properties"]["baseline"]["enum"].clone();
        assert_eq!(words, json!(["block", "ignore", "off"]));
    }
}
