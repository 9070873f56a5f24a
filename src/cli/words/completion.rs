//! Completions for shells: what clap makes of the definitions, and names that only this node knows (releases,
//! applications, members, channels), which the scripts ask of the hidden `cutover complete`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap_complete::{Shell, generate};

use super::args::Global;
use super::examples::command;
use super::release_args::Names;
use crate::cli::context::Context;
use crate::cli::output::print;
use crate::config::{self, Places};
use crate::store::Kept;
use crate::sys::disk::Disk;
use crate::sys::process::{self, Command};

/// How long shared storage may take to list a fleet's nodes.
const STORAGE_LIMIT: Duration = Duration::from_secs(1);

/// Commands whose first word is a release on this node.
const OF_VERSIONS: [&str; 10] =
    ["switch", "update", "stage", "rehearse", "rollback", "pin", "unpin", "mark-bad", "mark-good", "verify"];

/// The script for a shell.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut bytes = Vec::new();
    generate(shell, &mut command(), "cutover", &mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => bash(&text).into_bytes(),
        Shell::Zsh => zsh(&text).into_bytes(),
        Shell::Fish => fish(&text).into_bytes(),
        _ => bytes,
    }
}

/// What clap made stays the first answer; names come beside it, where a word that is no option is wanted.
fn bash(text: &str) -> String {
    let commands = OF_VERSIONS.join("|");
    let more = format!(
        r#"
_cutover_names() {{
    COMPREPLY+=( $(compgen -W "$(cutover complete "$1" 2>/dev/null)" -- "$2") )
}}

_cutover_with_names() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" words=" ${{COMP_WORDS[*]:1:COMP_CWORD-1}} "
    _cutover "$@"
    case "$prev" in
        --app) COMPREPLY=(); _cutover_names apps "$cur"; return ;;
        --channel) COMPREPLY=(); _cutover_names channels "$cur"; return ;;
        --add|--remove|--only|waive) COMPREPLY=(); _cutover_names members "$cur"; return ;;
    esac
    [[ "$cur" == -* ]] && return
    case "$prev" in
        {commands}|diff|propose) _cutover_names versions "$cur" ;;
        *) [[ "$words" == *" diff "* ]] && _cutover_names versions "$cur" ;;
    esac
}}
"#
    );
    let text = text.replace("complete -F _cutover -o", "complete -F _cutover_with_names -o");
    let at = text.rfind("\nif [[ \"${BASH_VERSINFO[0]}\"").unwrap_or(text.len());
    format!("{}{more}{}", &text[..at], &text[at..])
}

fn zsh(text: &str) -> String {
    let names = "\n_cutover_names() {\n    local -a names\n    names=(${(f)\"$(cutover complete $1 2>/dev/null)\"})\n    compadd -a names\n}\n";
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_version =
            line.contains("version -- ") || line.contains(":one -- ") || line.contains(":other -- ");
        let line = if line.starts_with("'--app=[") {
            line.replace(":NAME:_default", ":NAME:_cutover_names apps")
        } else if line.starts_with("'--channel=[") {
            line.replace(":NAME:_default", ":NAME:_cutover_names channels")
        } else if line.contains(":NODE:_default") {
            line.replace(":NODE:_default", ":NODE:_cutover_names members")
        } else if line.contains(":node -- ") {
            line.replace(":_default'", ":_cutover_names members'")
        } else if is_version {
            line.replace(":_default'", ":_cutover_names versions'")
        } else if line.contains(":what -- ") {
            line.replace(
                ":_default'",
                ":_alternative \"v\\:release\\:_cutover_names versions\" \"f\\:file\\:_files\"'",
            )
        } else {
            line.to_owned()
        };
        lines.push(line);
    }
    let text = lines.join("\n");
    // The helper stands before the last lines, which run or register the function.
    match text.rfind("\nif [ \"$funcstack[1]\"") {
        Some(at) => format!("{}{names}{}\n", &text[..at], &text[at..]),
        None => format!("{text}{names}"),
    }
}

fn fish(text: &str) -> String {
    let mut text = text.to_owned();
    let mut add = |condition: &str, rest: &str| {
        text.push_str(&format!("complete -c cutover -n \"{condition}\" {rest}\n"));
    };
    for command in OF_VERSIONS.iter().chain(&["diff"]) {
        add(
            &format!("__fish_cutover_using_subcommand {command}"),
            "-a \"(cutover complete versions 2>/dev/null)\" -d release",
        );
    }
    add(
        "__fish_seen_subcommand_from propose",
        "-f -a \"(cutover complete versions 2>/dev/null)\" -d release",
    );
    add("__fish_seen_subcommand_from waive", "-f -a \"(cutover complete members 2>/dev/null)\" -d node");
    text.push_str("complete -c cutover -l app -x -a \"(cutover complete apps 2>/dev/null)\"\n");
    text
}

/// `complete`: names, one a line. What cannot be had is no error: nobody reads one while typing.
pub fn names(which: Names, global: &Global) {
    let mut names = match which {
        Names::Apps => config::apps(&Places::default()),
        Names::Versions | Names::Members | Names::Channels => of_node(which, global).unwrap_or_default(),
    };
    names.sort();
    names.dedup();
    if !names.is_empty() {
        print(&names.join("\n"));
    }
}

fn of_node(which: Names, global: &Global) -> Option<Vec<String>> {
    let context = Context::load(global, std::sync::Arc::default(), Disk::default()).ok()?;
    let store = context.store().ok()?;
    let state = match store.state() {
        Ok(Kept::Whole(state)) => state,
        Ok(Kept::Missing | Kept::Damaged(_)) | Err(_) => crate::types::state::State::default(),
    };
    Some(match which {
        Names::Apps => Vec::new(),
        Names::Versions => {
            let offered = state.channels.values().filter_map(|seen| seen.offer.as_ref());
            let offered = offered.map(|offer| offer.release.version.to_string());
            store.releases().ok()?.iter().map(ToString::to_string).chain(offered).collect()
        }
        Names::Channels => {
            let name = |key: &String| Some(key.split(' ').next()?.split_once('/')?.1.to_owned());
            state.channels.keys().filter_map(name).collect()
        }
        Names::Members => {
            let nodes = Path::new(&context.settings().fleet.directory).join("nodes");
            // Storage that hangs must not hang a shell: another process asks it, and not for long.
            let list = Command::new([OsString::from("ls"), nodes.into_os_string()]).timeout(STORAGE_LIMIT);
            let outcome = process::run(&list);
            if outcome.is_success() {
                outcome.text().lines().map(str::to_owned).collect()
            } else {
                Vec::new()
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_node_are_asked_for_where_they_are_wanted() {
        let text = |shell| String::from_utf8(script(shell)).unwrap();
        let bash = text(Shell::Bash);
        assert!(
            bash.contains("complete -F _cutover_with_names -o") && bash.contains("_cutover_names versions")
        );
        let zsh = text(Shell::Zsh);
        assert!(zsh.contains("The staged release:_cutover_names versions'"), "{zsh}");
        assert!(zsh.contains(":NAME:_cutover_names apps") && zsh.contains("compadd -a names"));
        let fish = text(Shell::Fish);
        assert!(fish.contains("__fish_cutover_using_subcommand switch\" -a \"(cutover complete versions"));
        for (shell, script) in [("bash", &bash), ("zsh", &zsh), ("fish", &fish)] {
            let mut command = std::process::Command::new(shell);
            let command =
                command.arg("-n").stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            let Ok(mut child) = command.spawn() else {
                eprintln!("SKIPPED the syntax of completions: no {shell}");
                continue;
            };
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{shell}: {output:?}");
        }
    }
}
