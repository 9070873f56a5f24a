//! `health`: the checks, now.

use std::time::Duration;

use serde_json::json;

use super::context::Context;
use super::failure::{Error, code};
use crate::cli::words::args::HealthArgs;
use crate::health::Observation;

pub fn health(context: &Context, args: &HealthArgs) -> Result<u8, Error> {
    context.with_node("health", |node| {
        let Some(version) = node.store.active()? else {
            return Err(Error::NoSuchRelease { what: "current".into(), nearest: None });
        };
        let tree = node.store.tree(&version)?;
        let health = &node.settings.health;
        let is_required = |name: &str| health.check.iter().all(|check| check.name != name || check.required);
        let began = node.clock.boot();
        let (seen, is_healthy) = loop {
            let seen = node.application().watch(&version, &tree, None).observe(Duration::ZERO);
            let is_healthy = seen.iter().all(|seen| seen.ok.is_healthy() || !is_required(&seen.name));
            let is_over = node.clock.boot().saturating_sub(began) >= health.deadline.0;
            if is_healthy || !args.wait || is_over {
                break (seen, is_healthy);
            }
            node.clock.sleep(health.interval.0);
        };
        let values: Vec<_> = seen
            .iter()
            .map(|seen| {
                json!({
                    "name": seen.name, "ok": seen.ok.is_healthy(), "answer": seen.ok, "detail": seen.detail,
                    "last_ms": u64::try_from(seen.took.as_millis()).unwrap_or(u64::MAX),
                    "required": is_required(&seen.name),
                })
            })
            .collect();
        let value = json!({"version": version, "healthy": is_healthy, "checks": values});
        context.output.result(&value, &text(&seen));
        Ok(if is_healthy { 0 } else { code::FAILED })
    })
}

fn text(seen: &[Observation]) -> String {
    if seen.is_empty() {
        return "no check is configured".into();
    }
    seen.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
