//! Writes the manual pages and the completions: `manual DIRECTORY`.
//!
//! ```text
//! man/cutover.1, man/cutover-update.1, …    from the definitions of the command line
//! man/cutover.toml.5                        from README's table of settings
//! man/cutover-release.5, cutover-fleet.7    from docs/
//! completions/{cutover.bash,_cutover,cutover.fish}
//! cutover.schema.json                       for editors: the keys of the configuration
//! ```
//! Nothing is said twice: what a page says stands in the program or in the documents.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    reason = "a tool of the build, not a part of cutover"
)]

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use cutover::cli::words::args::Cli;
use cutover::cli::words::completion;
use cutover::cli::words::examples::More;

mod markdown;

/// A page made of a part of a document.
struct Page {
    name: &'static str,
    section: u8,
    about: &'static str,
    document: &'static str,
    /// The heading whose part it is; empty: the whole.
    heading: &'static str,
}

const PAGES: [Page; 5] = [
    Page {
        name: "cutover.toml",
        section: 5,
        about: "configuration of cutover",
        document: "README.md",
        heading: "## Configuration",
    },
    Page {
        name: "cutover-release",
        section: 5,
        about: "releases, manifests, channels and signatures of cutover",
        document: "docs/format.md",
        heading: "## A release",
    },
    Page {
        name: "cutover-fleet",
        section: 7,
        about: "nodes that take turns, or switch together or not at all",
        document: "docs/fleet.md",
        heading: "",
    },
    Page {
        name: "cutover-hooks",
        section: 7,
        about: "programs that run at the moments of an update of cutover",
        document: "docs/hooks.md",
        heading: "",
    },
    Page {
        name: "cutover-troubleshooting",
        section: 7,
        about: "what to do about each exit code and symptom of cutover",
        document: "docs/troubleshooting.md",
        heading: "",
    },
];

/// `cutover help x` is `cutover x --help`: no pages of its own.
fn without_help_commands(mut command: clap::Command) -> clap::Command {
    for below in command.get_subcommands_mut() {
        *below = without_help_commands(below.clone());
    }
    command.disable_help_subcommand(true)
}

/// A page for a command, and for each below it: what clap makes of the definitions, then examples, exit status, and where
/// to read on.
fn pages(command: &clap::Command, name: &str, directory: &Path) -> io::Result<()> {
    let file = name.replace(' ', "-");
    let more = name.strip_prefix("cutover").map(str::trim_start).and_then(More::of);
    let own = command.clone().name(file.clone()).display_name(file.clone()).bin_name(name.to_owned());
    let mut text = Vec::new();
    clap_mangen::Man::new(own).render(&mut text)?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if let Some(more) = more {
        text.push_str(".SH EXAMPLES\n");
        for (typed, does) in more.examples {
            text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", markdown::escape(typed), markdown::escape(does)));
        }
        text.push_str(".SH \"EXIT STATUS\"\n");
        for (code, means) in more.exit_codes() {
            text.push_str(&format!(".TP\n\\fB{code}\\fR\n{}\n", markdown::escape(means)));
        }
        text.push_str(".SH \"SEE ALSO\"\n");
        let see: Vec<String> = more
            .see
            .iter()
            .filter_map(|page| page.split_once('('))
            .map(|(page, section)| format!(".BR {} ({section}", markdown::escape(page)))
            .collect();
        text.push_str(&format!("{}\n", see.join(",\n")));
    }
    fs::write(directory.join(format!("{file}.1")), text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, &format!("{name} {}", below.get_name()), directory)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let directory = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: manual DIRECTORY"))?;
    let (man, completions) = (Path::new(&directory).join("man"), Path::new(&directory).join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut all = without_help_commands(Cli::command());
    // Commands below learn of the options of all.
    all.build();
    pages(&all, "cutover", &man)?;
    for (shell, name) in
        [(Shell::Bash, "cutover.bash"), (Shell::Zsh, "_cutover"), (Shell::Fish, "cutover.fish")]
    {
        fs::write(completions.join(name), completion::script(shell))?;
    }
    let schema = serde_json::to_string_pretty(&cutover::cli::words::schema::schema())?;
    fs::write(Path::new(&directory).join("cutover.schema.json"), schema + "\n")?;
    for page in PAGES {
        let text = fs::read_to_string(page.document)?;
        let part = markdown::part(&text, page.heading)
            .ok_or_else(|| io::Error::other(format!("{} has no `{}`", page.document, page.heading)))?;
        let title = page.name.to_uppercase();
        let head = format!(
            ".TH \"{title}\" \"{section}\" \"\" \"cutover {version}\"\n.SH NAME\n{name} \\- {about}\n.SH DESCRIPTION\n",
            section = page.section,
            version = env!("CARGO_PKG_VERSION"),
            name = markdown::escape(page.name),
            about = page.about
        );
        let see = ".SH SEE ALSO\n.BR cutover (1),\n.BR cutover.toml (5),\n.BR cutover\\-release (5),\n\
                   .BR cutover\\-fleet (7),\n.BR cutover\\-hooks (7),\n.BR cutover\\-troubleshooting (7)\n";
        fs::write(
            man.join(format!("{}.{}", page.name, page.section)),
            format!("{head}{}{see}", markdown::to_roff(part)),
        )?;
    }
    Ok(())
}
