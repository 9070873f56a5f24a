//! `data`: what rollbacks have set aside.

use serde_json::json;

use super::context::Context;
use super::failure::Error;
use super::output::table;
use crate::cli::words::args::DataCommand;
use crate::lifecycle::application::data::Data;
use crate::types::{Size, escaped_path};

/// `data list` and `data drop`
pub fn data(context: &Context, command: &DataCommand) -> Result<u8, Error> {
    let store = context.store()?;
    let data = Data::kept(&store);
    match command {
        DataCommand::List => list(context, &data),
        DataCommand::Drop(args) => context.with_node("data drop", |node| {
            // A rollback under way may be about to add to it.
            let _lock = node.lock()?;
            if !data.drop_aside(&args.id)? {
                let what = format!("nothing was set aside under `{}`", args.id);
                return Err(Error::Usage {
                    what,
                    hint: Some("`cutover data list` shows what is there".into()),
                });
            }
            context.output.result(&json!({"dropped": args.id}), &format!("{} is gone", args.id));
            Ok(0)
        }),
    }
}

fn list(context: &Context, data: &Data) -> Result<u8, Error> {
    let aside = data.aside()?;
    let mut values = Vec::new();
    let mut rows = vec![["id", "written by", "set aside", "size", "was", "is"].map(str::to_owned).to_vec()];
    for (set, bytes) in &aside {
        values.push(json!({
            "id": set.transaction, "release": set.release, "at": set.at, "bytes": bytes, "items": set.items,
        }));
        for item in &set.items {
            rows.push(vec![
                set.transaction.clone(),
                set.release.version.to_string(),
                set.at.to_string(),
                Size(*bytes).to_string(),
                escaped_path(&item.path),
                format!(
                    "{}{}",
                    escaped_path(&item.stored),
                    if data.is_away(item) { " (not there: is its file system mounted?)" } else { "" }
                ),
            ]);
        }
    }
    let text = if aside.is_empty() { "nothing is set aside".to_owned() } else { table(&rows) };
    context.output.result(&json!({"aside": values}), &text);
    Ok(0)
}
