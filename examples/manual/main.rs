//! Writes the manual pages and the completions: `manual DIRECTORY`.
//!
//! ```text
//! man/cutover.1, man/cutover-update.1, …    from the definitions of the command line
//! man/cutover.toml.5                        from README's table of settings
//! man/cutover-release.5, cutover-fleet.7    from docs/
//! completions/{cutover.bash,_cutover,cutover.fish}
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
use cutover::cli::args::Cli;

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

fn main() -> io::Result<()> {
    let directory = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: manual DIRECTORY"))?;
    let (man, completions) = (Path::new(&directory).join("man"), Path::new(&directory).join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(without_help_commands(Cli::command()), &man)?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "cutover", &completions)?;
    }
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
