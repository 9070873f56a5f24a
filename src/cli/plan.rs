//! `check`, `update --dry-run` and `rollback --check`: what would be done, before it is. They touch nothing.

use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Error, code, failure};
use super::rehearse::can_rehearse;
use super::update::{Named, judge_policies, nothing_newer, parse_named};
use crate::cli::words::args::{RollbackArgs, UpdateArgs};
use crate::coord::settings::Mode;
use crate::lifecycle::application::data::{Decision, Probing};
use crate::lifecycle::application::service;
use crate::lifecycle::node::copies::{age_s, age_text};
use crate::lifecycle::node::plan::{self, DataBack, StagingPlan};
use crate::lifecycle::node::touched::in_words;
use crate::lifecycle::node::{self, Node, WayBack, phase_name};
use crate::lifecycle::policy;
use crate::lifecycle::rehearsal;
use crate::lifecycle::report::view::BlockedView;
use crate::lifecycle::settings::Settings;
use crate::lifecycle::staging::upstream::Offered;
use crate::release::resolve::Candidate;
use crate::types::{Digest, ReleaseId, Size, Version, escaped_path};

/// What is in the way, as JSON.
pub fn as_json(in_the_way: &[policy::Blocked]) -> Value {
    in_the_way.iter().cloned().map(|blocked| json!(BlockedView::from(blocked))).collect()
}

/// A switch that may be made, and all that it takes.
struct Plan {
    offered: Offered,
    from: Option<ReleaseId>,
    staging: StagingPlan,
    in_the_way: Vec<policy::Blocked>,
}

impl Plan {
    fn of(
        node: &Node<'_>,
        offered: Offered,
        candidate: Option<(&Candidate, bool)>,
        is_urgent: bool,
    ) -> Result<Self, Error> {
        let staging = match candidate {
            Some((candidate, is_named)) => node.plan_staging(candidate, is_named)?,
            None => StagingPlan { ranges: Vec::new(), write_bytes: Some(0) },
        };
        let from = node.active_release(&node.store.trusted_state()?)?;
        if from.as_ref().is_none_or(|from| from.digest != offered.release.digest) {
            node.data().check(&node.settings.data, Probing::Guessed)?;
        }
        let in_the_way = judge_policies(node, &offered, is_urgent)?;
        Ok(Self { offered, from, staging, in_the_way })
    }

    fn is_newer(&self) -> bool {
        self.from.as_ref().is_none_or(|from| from.digest != self.offered.release.digest)
    }

    fn value(&self, node: &Node<'_>) -> Value {
        let settings = node.settings;
        let ranges: Vec<_> = self
            .staging
            .ranges
            .iter()
            .map(|range| json!({"start": range.start, "bytes": range.end - range.start}))
            .collect();
        let copies = plan::copies(settings);
        json!({
            "version": self.offered.release.version, "digest": self.offered.release.digest,
            "serial": self.offered.serial, "from": self.from.as_ref().map(|from| &from.version),
            "fetch_bytes": self.staging.fetch_bytes(), "fetch_ranges": ranges,
            "archive_bytes": self.offered.archive_bytes,
            "write_bytes": self.staging.write_bytes, "unpacked_bytes": self.offered.unpacked_bytes,
            "units": settings.service.units, "action": action(settings),
            "data": copies.iter().map(|copy| copy.path.display().to_string()).collect::<Vec<_>>(),
            "data_copies": copies.iter().map(|copy| json!({"path": copy.path, "how": copy.how})).collect::<Vec<_>>(),
            "rehearsal": rehearsal_value(node, &self.offered.release.version),
            "blocked": as_json(&self.in_the_way),
        })
    }

    /// For people, one line for each thing that it takes.
    fn lines(&self, context: &Context, node: &Node<'_>) -> Vec<String> {
        let settings = node.settings;
        let mut lines = vec![format!("  fetch    {}", self.fetch())];
        if context.global.verbose > 0 {
            let part = |range: &std::ops::Range<u64>| {
                format!("           {} bytes at {}", range.end - range.start, range.start)
            };
            lines.extend(self.staging.ranges.iter().map(part));
        }
        lines.push(match self.staging.write_bytes {
            Some(0) => "  write    nothing".to_owned(),
            Some(bytes) => format!("  write    {}", Size(bytes)),
            None => "  write    unknown: the manifest does not say `unpacked`".to_owned(),
        });
        lines.push(format!("  service  {}", service_line(settings)));
        lines.extend(data_lines(settings));
        lines.extend(rehearsal_line(node, &self.offered.release.version));
        match settings.fleet.mode {
            Mode::Independent => {}
            Mode::Rolling | Mode::Synchronous | Mode::Cells => {
                lines.push(
                    "  fleet    switches only in a rollout; `cutover fleet status` shows it".to_owned(),
                );
            }
        }
        lines.extend(self.in_the_way.iter().map(|blocked| format!("  not now  {}", blocked.text)));
        lines
    }

    fn fetch(&self) -> String {
        let (bytes, of) = (self.staging.fetch_bytes(), self.offered.archive_bytes);
        match self.staging.ranges.len() {
            0 if self.staging.write_bytes == Some(0) => "nothing: it is staged already".to_owned(),
            0 => "nothing: all of it was fetched already".to_owned(),
            1 if bytes == of => format!("{}, the whole archive", Size(of)),
            1 => format!("{} of {}, in one part", Size(bytes), Size(of)),
            parts => format!("{} of {}, in {parts} parts", Size(bytes), Size(of)),
        }
    }
}

/// Whether the release would be rehearsed, and what stands against it, if anything does.
fn rehearsal_value(node: &Node<'_>, version: &Version) -> Value {
    let network = node.settings.rehearsal.network;
    let against = can_rehearse(node, version).err().map(|error| error.to_string());
    json!({"network": network, "impossible": against})
}

fn rehearsal_line(node: &Node<'_>, version: &Version) -> Option<String> {
    let text = match (node.settings.rehearsal.network, can_rehearse(node, version)) {
        (rehearsal::Network::Off, _) => return None,
        (_, Err(error)) => format!("impossible: {error}"),
        (rehearsal::Network::Private, Ok(())) => "first, in a network of its own".to_owned(),
        (rehearsal::Network::Host, Ok(())) => "first, on the host's network".to_owned(),
    };
    Some(format!("  rehearse {text}"))
}

fn action(settings: &Settings) -> &'static str {
    match settings.service.action {
        service::Action::Restart => "restart",
        service::Action::ReloadOrRestart => "reload-or-restart",
        service::Action::StopStart => "stop-start",
        service::Action::None => "none",
    }
}

fn service_line(settings: &Settings) -> String {
    match (&settings.service.command, settings.service.units.as_slice()) {
        (Some(_), _) => "stopped and started by `[service] command`".to_owned(),
        (None, []) => "none: the pointer moves, and nothing is restarted".to_owned(),
        (None, units) => format!("{}: {}", action(settings), units.join(" ")),
    }
}

fn data_lines(settings: &Settings) -> Vec<String> {
    let line = |copy: &plan::CopyPlan| {
        let what = match copy.how {
            "snapshot" => "a snapshot is taken first",
            "copy" => "copied first (blocks are shared where the file system can)",
            "absent" => "nothing there yet",
            _ => "kept as they are",
        };
        format!("  data     {}: {what}", escaped_path(&copy.path))
    };
    let lines: Vec<_> = plan::copies(settings).iter().map(line).collect();
    if lines.is_empty() { vec!["  data     none configured".to_owned()] } else { lines }
}

fn is_banned(node: &Node<'_>, digest: Digest) -> Result<Option<crate::types::state::Bad>, Error> {
    let state = node.store.trusted_state()?;
    Ok(state.bad.into_iter().find(|bad| bad.release.digest == digest))
}

pub fn check(context: &Context) -> Result<u8, Error> {
    context.with_node("check", |node| {
        // To look is not to accept: nothing is remembered.
        let node = &Node { is_dry: true, ..node.with_settings(node.settings) };
        let (offered, candidate) = node.look(None)?;
        let release = offered.release.clone();
        let version = &release.version;
        let active = node.active_release(&node.store.trusted_state()?)?;
        let is_current = active.as_ref().is_some_and(|active| active.digest == release.digest);
        let plan = Plan::of(node, offered, (!is_current).then_some((&candidate, false)), false)?;
        let banned = is_banned(node, release.digest)?;
        let mut value = plan.value(node);
        value["newer"] = json!(plan.is_newer());
        value["active"] = json!(plan.from.as_ref().map(|from| &from.version));
        value["banned"] = json!(banned.is_some());
        let text = match (&banned, plan.is_newer()) {
            (_, false) => nothing_newer(version),
            (Some(_), true) => format!(
                "release {version} is offered, and banned here; `cutover mark-good {version}` lifts that"
            ),
            (None, true) => {
                let lines = plan.lines(context, node).join("\n");
                format!("release {version} may be installed with `cutover update`\n{lines}")
            }
        };
        context.output.result(&value, &text);
        Ok(if plan.is_newer() && banned.is_none() { 0 } else { code::NOTHING_NEWER })
    })
}

/// `update --dry-run`: the ends of `update`, without its deeds.
pub fn dry_run(context: &Context, node: &Node<'_>, args: &UpdateArgs) -> Result<u8, Error> {
    if let Some(needs) = node.store.trusted_state()?.needs_person {
        return Err(node::Error::NeedsPerson(needs).into());
    }
    let under_way = node.under_way()?;
    let is_named = args.what.is_some();
    let (offered, candidate) =
        match args.what.as_deref().map(|what| parse_named(what, &args.file)).transpose()? {
            Some(Named::File(path)) => {
                let candidate =
                    node.candidate_of_file(&path, args.file.version.as_ref(), args.file.allow_unsigned)?;
                (Offered::candidate(&candidate), Some((candidate, true)))
            }
            Some(Named::Version(version)) => match node.store.release(&version) {
                Ok(sealed) => (Offered::staged(&sealed), None),
                Err(_) => node.look(Some(&version)).map(|(offered, it)| (offered, Some((it, false))))?,
            },
            None => node.look(None).map(|(offered, it)| (offered, Some((it, false))))?,
        };
    let version = offered.release.version.clone();
    let active = node.active_release(&node.store.trusted_state()?)?;
    if active.is_some_and(|active| active == offered.release) {
        let value = json!({"outcome": "nothing_to_do", "version": version});
        context.output.result(&value, &format!("release {version} is active; there is nothing to do"));
        return Ok(0);
    }
    if let Some(bad) = is_banned(node, offered.release.digest)? {
        if !is_named {
            return super::update::not_now(context, &version, &[policy::banned(&bad)]);
        }
        return Err(node::Error::Banned(bad).into());
    }
    let candidate = candidate.as_ref().map(|(candidate, is_file)| (candidate, *is_file));
    let plan = Plan::of(node, offered, candidate, args.now || is_named)?;
    let mut value = plan.value(node);
    value["resumes"] = json!(under_way.as_ref().map(|record| &record.to.version));
    let mut lines = Vec::new();
    if let Some(record) = &under_way {
        let (to, phase) = (&record.to.version, phase_name(&record.phase));
        lines.push(format!("would first finish the update to release {to}, which is in phase {phase}"));
    }
    let from =
        plan.from.as_ref().map_or_else(|| "nothing".to_owned(), |from| format!("release {}", from.version));
    lines.push(format!("would switch from {from} to release {version}"));
    lines.extend(plan.lines(context, node));
    context.output.result(&value, &lines.join("\n"));
    Ok(if plan.in_the_way.is_empty() { 0 } else { code::NOT_NOW })
}

/// `rollback --check`
pub fn rollback_check(context: &Context, node: &Node<'_>, args: &RollbackArgs) -> Result<u8, Error> {
    let route = node.route(args.version.as_ref())?;
    let (from, to) = (&route.from.version, &route.back_to.version);
    let (settings, store) = (node.settings, node.store);
    let back = DataBack { settings, store, asked: Some(args.data.into()), old: Some(to), new: from };
    let decided: Vec<_> =
        route.data().iter().map(|copy| (copy.path.as_str(), back.decide(&copy.path))).collect();
    let word = |decision: Decision| match decision {
        Decision::Keep => "keep",
        Decision::Restore => "restore",
    };
    node.check_way_back(&route, args.data.into())?;
    let data = match (settings.data.is_empty(), back.restores(route.data())) {
        (true, _) => "none",
        (false, true) => "restore",
        (false, false) => "keep",
    };
    let touched = node.touched(to)?;
    let value = json!({
        "changed_files": touched.iter().map(|file| &file.path).collect::<Vec<_>>(),
        "possible": true, "from": from, "to": to, "units": settings.service.units, "action": action(settings),
        "data": data, "hold": !args.no_hold,
        "data_at": route.copy.as_ref().map(|copy| copy.at),
        "data_age_s": route.copy.as_ref().map(|copy| age_s(copy.at, node.clock.wall())),
        "data_actions": decided.iter().map(|(path, decision)| json!({"path": path, "action": word(*decision)})).collect::<Vec<_>>(),
    });
    let mut text = back_text(settings, &decided, (from, to), !args.no_hold);
    if let Some(copy) = route.copy.as_ref().filter(|copy| back.restores(&copy.items)) {
        let age = age_text(copy.at, node.clock.wall());
        text = format!(
            "{text}\n  age      the data that come back are of {}, {age}",
            copy.at.strftime("%Y-%m-%d %H:%M:%SZ")
        );
    }
    let way = WayBack { version: args.version.clone(), data: args.data.into(), ..WayBack::default() };
    let refused = node.judge_data(&route, &way).err().map(Error::from).map(|error| failure(&error));
    let mut value = value;
    value["refused"] = json!(refused.as_ref().map(|refused| &refused.message));
    if let Some(refused) = &refused {
        let hint = refused.hint.as_deref().unwrap_or_default();
        text = format!("{text}\n  but      it is refused as it stands: {}; {hint}", refused.message);
    }
    if !touched.is_empty() {
        text.push_str(&format!(
            "\n  warning  the tree of release {to} was written to: {}",
            in_words(&touched)
        ));
    }
    context.output.result(&value, &text);
    Ok(0)
}

fn back_text(
    settings: &Settings,
    decided: &[(&str, Decision)],
    (from, to): (&Version, &Version),
    holds: bool,
) -> String {
    let mut lines = vec![
        format!("would go back from release {from} to {to}, with what is on this node"),
        format!("  service  {}", service_line(settings)),
    ];
    let what = |decision: &Decision| match decision {
        Decision::Keep => "kept as they are",
        Decision::Restore => "as before the switch; newer ones are set aside, not deleted",
    };
    lines.extend(decided.iter().map(|(path, decision)| format!("  data     {path}: {}", what(decision))));
    if decided.is_empty() {
        let why = if settings.data.is_empty() {
            "none configured"
        } else {
            "kept as they are: no copy belongs to this way back"
        };
        lines.push(format!("  data     {why}"));
    }
    lines.push(match holds {
        true => "  then     automatic switching is held, until `cutover unhold`".to_owned(),
        false => "  then     automatic switching goes on, and may bring the newer release again".to_owned(),
    });
    lines.join("\n")
}
