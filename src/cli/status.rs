//! `status`: what a person wants to know in five seconds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::failure::Error;
use super::fleet;
use super::output::{Output, print};
use crate::cli::output::narrator::add_looks;
use crate::cli::output::published::{is_forbidden, last_published, published};
use crate::cli::output::screen::screen;
use crate::cli::words::args::{Global, StatusArgs};
use crate::config::{self, Places};
use crate::lifecycle::node::touched::in_words;
use crate::lifecycle::report::running::running;
use crate::lifecycle::report::status::status as look;
use crate::lifecycle::report::view::{Doing, Status};
use crate::sys::disk;

pub fn status(
    args: &StatusArgs,
    global: &Global,
    load: &dyn Fn() -> Result<Context, Error>,
) -> Result<u8, Error> {
    if args.all {
        return all(global, load);
    }
    let context = match load() {
        Err(error) if is_forbidden(&error) => return published(global, error),
        context => context?,
    };
    loop {
        let mut view = match view(&context, args.watch) {
            Err(error) if is_forbidden(&error) && !args.watch => {
                let global = Global { app: Some(context.app.clone()), ..global.clone() };
                return published(&global, error);
            }
            view => view?,
        };
        if !args.watch {
            look_for_changes(&context, &mut view);
        }
        let text = screen(&view, Timestamp::now(), context.output);
        if !args.watch {
            context.output.result(&view, &text);
            return Ok(0);
        }
        // From the top, over what stands there: nothing flickers, and nothing fills the terminal's history.
        let lines = text.trim_end().replace('\n', "\x1b[K\n");
        print(&format!("\x1b[H{lines}\x1b[K\n\x1b[J"));
        std::thread::sleep(Duration::from_secs(1));
        if context.interrupted.load(Ordering::Relaxed) {
            return Ok(0);
        }
    }
}

/// Whether somebody has written to the tree that a rollback would bring back. Only when a person asks, once: it takes a
/// look at each of its files.
fn look_for_changes(context: &Context, view: &mut Status) {
    let Some(previous) = &mut view.previous else { return };
    let touched = context.with_node("status", |node| Ok(node.touched(&previous.version)?));
    let Ok(touched) = touched else { return };
    if !touched.is_empty() {
        previous.rollback.changed = Some(in_words(&touched));
    }
}

fn all(global: &Global, load: &dyn Fn() -> Result<Context, Error>) -> Result<u8, Error> {
    let output = Output::new(global);
    let (mut views, mut code) = (Vec::new(), 0);
    if global.config.is_some() || global.root.is_some() {
        views.push(view(&load()?, false)?);
    } else {
        for app in config::apps(&Places::default()) {
            let global = Global { app: Some(app.clone()), json: false, ..global.clone() };
            let context = Context::load(&global, std::sync::Arc::default(), disk::Disk::default());
            match context.and_then(|context| view(&context, false)) {
                Ok(view) => views.push(view),
                Err(error) if is_forbidden(&error) && last_published(&app).is_some() => {
                    views.extend(last_published(&app));
                }
                // What is wrong with one hides none of the others.
                Err(error) => code = super::tell(&global, &error).max(code),
            }
        }
    }
    let now = Timestamp::now();
    let texts: Vec<String> = views.iter().map(|view| screen(view, now, output)).collect();
    output.result(&views, &texts.join("\n\n"));
    Ok(code)
}

/// The view, with what only the process that works on an update knows, as it last told. Whoever watches asks no storage every
/// second.
fn view(context: &Context, is_watched: bool) -> Result<Status, Error> {
    let store = context.store()?;
    let mut view = look(&context.app, &context.node, context.settings(), &store, Timestamp::now())?;
    let active = view.active.as_ref().map(|active| active.version.clone());
    view.add_running(running(context.settings(), &store, active.as_ref()));
    view.add_shut_out((!is_watched).then(|| fleet::shut_out(context)).flatten().map(|shut| shut.why));
    add_looks(&mut view);
    // A rehearsal by hand is no update.
    if (view.update.is_some() || view.state == Doing::Warming)
        && let Some(told) = last_published(&context.app)
        && told.root == view.root
    {
        if let (Some(mine), Some(theirs)) = (&mut view.update, told.update)
            && (theirs.pid, &theirs.transaction, &theirs.phase) == (mine.pid, &mine.transaction, &mine.phase)
        {
            mine.waits_for = theirs.waits_for;
        }
        if view.state == Doing::Warming {
            view.rehearsal = told.rehearsal.or(view.rehearsal);
        }
        if let (Doing::Trial | Doing::Warming, Some(mine), Some(theirs)) =
            (view.state, view.trial.as_mut(), told.trial)
            && mine.deadline == theirs.deadline
        {
            *mine = theirs;
        }
    }
    Ok(view)
}
