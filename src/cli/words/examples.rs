//! What is worth seeing of each command before it is typed: examples, exit status, and where to read on. Help texts and
//! manual pages are made of this table.

use std::ffi::OsString;

use clap::{Args, Command, CommandFactory, FromArgMatches};

use super::args::{Cli, Global};

/// What follows the options of a command in its help.
pub struct More {
    /// The command, as it is typed: `fleet propose`.
    pub command: &'static str,
    /// Lines that can be typed, each with what it does.
    pub examples: &'static [(&'static str, &'static str)],
    /// The exit codes that it has beside 0, 1, 2 and 11, which all may have.
    pub exit: &'static [u8],
    pub see: &'static [&'static str],
}

/// Exit codes and what they mean, in the words of the manual.
pub const EXIT_CODES: [(u8, &str); 12] = [
    (0, "done, or nothing to do"),
    (1, "failed, and nothing changed"),
    (2, "wrong usage or configuration"),
    (10, "the new release was rolled back; the old one serves and is healthy"),
    (11, "another cutover is at work"),
    (12, "refused: signature, content, format, or a banned release"),
    (13, "the fleet called the rollout off"),
    (14, "needs a person"),
    (15, "not now: hold, window, phase, slot, baseline, units, or a banned release"),
    (16, "not enough space; nothing was written"),
    (17, "shared storage away, or the outcome in doubt"),
    (77, "nothing newer"),
];

const UPDATES: &[u8] = &[10, 12, 13, 14, 15, 16, 17];

pub const MORE: &[More] = &[
    More {
        command: "status",
        examples: &[
            ("cutover status", "one screen: what runs, what goes on, and what to type next"),
            ("cutover status --watch", "the same, every second"),
            ("cutover status --json | jq '.blocked'", "why nothing newer runs, for programs"),
        ],
        exit: &[],
        see: &["cutover-troubleshooting(7)"],
    },
    More {
        command: "list",
        examples: &[
            ("cutover list", "what is on this node, and which processes use it"),
            ("cutover list --available", "what the channel names, too"),
        ],
        exit: &[14],
        see: &["cutover-prune(1)", "cutover-pin(1)"],
    },
    More {
        command: "check",
        examples: &[
            ("cutover check", "is there something newer, and what would it take"),
            (
                "cutover check -q || echo nothing newer",
                "in a script: exit 0 says there is, 77 says there is not",
            ),
        ],
        exit: &[12, 14, 77],
        see: &["cutover-update(1)"],
    },
    More {
        command: "stage",
        examples: &[
            ("cutover stage", "fetch and unpack the channel's release; the running one is untouched"),
            ("cutover stage 2.4.1", "another release that the channel names"),
            ("cutover stage ./shop-2.4.1.tar.zst", "an archive that is here"),
        ],
        exit: &[12, 14, 15, 16],
        see: &["cutover-switch(1)", "cutover-release(5)"],
    },
    More {
        command: "switch",
        examples: &[
            ("cutover switch 2.4.1", "switch to a staged release, and watch it"),
            ("cutover switch 2.4.1 --at 04:00", "at four o'clock UTC"),
            (
                "cutover switch 2.4.1 --confirm --trial 5min",
                "go back unless `cutover commit` is typed in five minutes",
            ),
        ],
        exit: UPDATES,
        see: &["cutover-stage(1)", "cutover-commit(1)", "cutover-rollback(1)"],
    },
    More {
        command: "update",
        examples: &[
            ("cutover update", "bring this node to the release that its channel names"),
            ("cutover update --dry-run", "what would happen, and what stands in the way"),
            ("cutover update --now", "outside the window, and although a check fails already"),
            ("cutover update --wait=10min", "when another cutover is at work, after it"),
            ("cutover update ./shop-2.4.1.tar.zst", "from an archive that is here"),
        ],
        exit: UPDATES,
        see: &["cutover-check(1)", "cutover-status(1)", "cutover-rollback(1)", "cutover.toml(5)"],
    },
    More {
        command: "rehearse",
        examples: &[
            ("cutover rehearse", "run the channel's release beside the running one, and switch nothing"),
            ("cutover rehearse 2.4.1 && cutover switch 2.4.1", "switch only if that went well"),
        ],
        exit: &[12, 14, 15, 16],
        see: &["cutover-update(1)", "cutover.toml(5)"],
    },
    More {
        command: "commit",
        examples: &[("cutover commit", "keep the release on trial now")],
        exit: &[10, 14],
        see: &["cutover-switch(1)"],
    },
    More {
        command: "rollback",
        examples: &[
            ("cutover rollback --check", "where would it lead, and what happens to the data"),
            ("cutover rollback --reason \"prices are wrong\"", "back to the release before, and hold there"),
            ("cutover rollback 2.3.9", "to another release that is here"),
            ("cutover rollback --now", "end the trial that another cutover watches"),
        ],
        exit: &[14, 15],
        see: &["cutover-unhold(1)", "cutover-data(1)"],
    },
    More {
        command: "hold",
        examples: &[
            ("cutover hold --until 2d --reason \"the fair\"", "no automatic switch for two days"),
            ("cutover hold", "until somebody lifts it"),
        ],
        exit: &[14],
        see: &["cutover-unhold(1)"],
    },
    More {
        command: "unhold",
        examples: &[("cutover unhold", "the timer may switch again")],
        exit: &[14],
        see: &["cutover-hold(1)"],
    },
    More {
        command: "pin",
        examples: &[("cutover pin 2.3.9", "keep this release, whatever retention says")],
        exit: &[14],
        see: &["cutover-unpin(1)", "cutover-prune(1)"],
    },
    More {
        command: "unpin",
        examples: &[("cutover unpin 2.3.9", "it goes when it is surplus")],
        exit: &[14],
        see: &["cutover-pin(1)"],
    },
    More {
        command: "mark-bad",
        examples: &[("cutover mark-bad 2.4.1 --reason \"leaks memory\"", "never switch to it here")],
        exit: &[14],
        see: &["cutover-mark-good(1)"],
    },
    More {
        command: "mark-good",
        examples: &[(
            "cutover mark-good 2.4.1",
            "after a trial that failed for another reason than the release",
        )],
        exit: &[14],
        see: &["cutover-log(1)"],
    },
    More {
        command: "health",
        examples: &[
            ("cutover health", "each check, and its answer"),
            ("cutover health --wait", "wait until all pass, as long as a new release may take"),
        ],
        exit: &[14],
        see: &["cutover.toml(5)"],
    },
    More {
        command: "data",
        examples: &[("cutover data list", "what rollbacks have set aside")],
        exit: &[],
        see: &["cutover-rollback(1)"],
    },
    More {
        command: "data list",
        examples: &[("cutover data list", "by which rollback, when, how much, and where it is")],
        exit: &[],
        see: &["cutover-data-drop(1)"],
    },
    More {
        command: "data drop",
        examples: &[("cutover data drop 20261123T041214Z-9f3a6c", "delete it for good")],
        exit: &[14, 15],
        see: &["cutover-data-list(1)"],
    },
    More {
        command: "verify",
        examples: &[
            ("cutover verify", "hash the active tree again; exit 12 when it differs"),
            ("cutover verify 2.3.9 --repair", "fetch again what differs"),
        ],
        exit: &[12, 14, 16],
        see: &["cutover-list(1)"],
    },
    More {
        command: "diff",
        examples: &[("cutover diff 2.3.9 2.4.1", "changed files, sizes, epochs of data and units")],
        exit: &[14],
        see: &["cutover-list(1)"],
    },
    More {
        command: "prune",
        examples: &[("cutover prune --dry-run", "what would go"), ("cutover prune", "remove it")],
        exit: &[14],
        see: &["cutover-pin(1)", "cutover.toml(5)"],
    },
    More {
        command: "log",
        examples: &[
            ("cutover log -n 5", "the last five outcomes"),
            ("cutover log --since 30d --json", "all of a month, for programs"),
            ("cutover log --follow", "each outcome as it comes"),
        ],
        exit: &[],
        see: &["cutover-status(1)", "cutover-report(1)"],
    },
    More {
        command: "recover",
        examples: &[("cutover recover", "finish or undo what was interrupted")],
        exit: &[10, 13, 14],
        see: &["cutover-troubleshooting(7)"],
    },
    More {
        command: "init",
        examples: &[
            ("cutover init --unit shop.service --print", "show the configuration that fits a running unit"),
            ("cutover init --unit shop.service", "write it to /etc/cutover/shop.toml"),
        ],
        exit: &[],
        see: &["cutover-adopt(1)", "cutover.toml(5)"],
    },
    More {
        command: "adopt",
        examples: &[
            ("cutover adopt /srv/shop/current --version 1.0.0", "make what runs the first release"),
            ("cutover adopt --undo", "put it back where it was; until the first switch"),
        ],
        exit: &[14, 16],
        see: &["cutover-init(1)", "cutover-status(1)"],
    },
    More {
        command: "pack",
        examples: &[
            (
                "cutover pack build/ --product shop --version 2.4.1 -o shop-2.4.1.tar.zst",
                "an archive and its manifest",
            ),
            (
                "cutover pack build/ --product shop --version 2.4.1 -o shop-2.4.1.tar.zst --base shop-2.4.0.tar.zst",
                "nodes fetch still less",
            ),
        ],
        exit: &[16],
        see: &["cutover-publish(1)", "cutover-release(5)"],
    },
    More {
        command: "keygen",
        examples: &[("cutover keygen team", "the private key in team, the public key in team.pub")],
        exit: &[],
        see: &["cutover-sign(1)", "ssh-keygen(1)"],
    },
    More {
        command: "sign",
        examples: &[(
            "cutover sign shop-2.4.1.manifest --key team",
            "the signature goes into shop-2.4.1.manifest.sig",
        )],
        exit: &[],
        see: &["cutover-verify-signature(1)", "ssh-keygen(1)"],
    },
    More {
        command: "verify-signature",
        examples: &[("cutover verify-signature stable.channel", "which trusted keys have signed it")],
        exit: &[12],
        see: &["cutover-sign(1)"],
    },
    More {
        command: "publish",
        examples: &[
            ("cutover publish /srv/releases 2.4.1 --key team", "this is the release to run"),
            (
                "cutover publish dist 2.4.1 --key team --to oci://registry.example/shop --dry-run",
                "what would be brought",
            ),
            (
                "cutover publish /srv/releases --key team",
                "the same again, before the channel expires (30 days)",
            ),
            (
                "cutover publish /srv/releases 2.4.1 --key team --percent 10 --wave 1d=100",
                "a tenth of the nodes first",
            ),
        ],
        exit: &[12],
        see: &["cutover-pack(1)", "cutover-release(5)"],
    },
    More {
        command: "copy",
        examples: &[
            (
                "cutover copy https://example.org/shop /mnt/usb/shop",
                "the channel and its release, for nodes without a network",
            ),
            ("cutover copy /mnt/usb/shop /srv/releases --dry-run", "what would be copied"),
        ],
        exit: &[12, 16],
        see: &["cutover-publish(1)", "cutover-release(5)"],
    },
    More {
        command: "trust",
        examples: &[("cutover trust show", "whose releases are taken")],
        exit: &[],
        see: &["cutover.toml(5)"],
    },
    More {
        command: "trust show",
        examples: &[("cutover trust show", "keys, and the highest serial seen of each channel")],
        exit: &[14],
        see: &["cutover-trust-forget-channel(1)"],
    },
    More {
        command: "trust forget-channel",
        examples: &[("cutover trust forget-channel stable", "after the source was restored from a backup")],
        exit: &[],
        see: &["cutover-trust-show(1)"],
    },
    More {
        command: "fleet",
        examples: &[("cutover fleet status --why", "how the rollout stands, and what is waited for")],
        exit: &[],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet init",
        examples: &[("cutover fleet init", "once, on one node")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet join",
        examples: &[("cutover fleet join", "on each node")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet members",
        examples: &[
            ("cutover fleet members", "who is in the list, and who has joined"),
            ("cutover fleet members --all", "the next list is of all that have joined"),
            ("cutover fleet members --remove web-3", "the next list is without this node"),
            (
                "cutover fleet members --cell web-3=ams-2",
                "in the next list this node switches with that cell",
            ),
        ],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet check",
        examples: &[(
            "cutover fleet check web-1 web-2 web-3",
            "on all three at once: can this storage do it",
        )],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet propose",
        examples: &[
            ("cutover fleet propose 2.4.1 --wait", "all members, and say how it ended"),
            ("cutover fleet propose --rollback --wait", "all back to the release before"),
        ],
        exit: &[10, 13, 17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet status",
        examples: &[
            ("cutover fleet status --watch", "who has voted, switched, and is healthy"),
            ("cutover fleet status --why", "what is waited for, and what follows"),
        ],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet report",
        examples: &[("cutover fleet report 17", "when each node did what in rollout 17")],
        exit: &[17],
        see: &["cutover-report(1)"],
    },
    More {
        command: "fleet abort",
        examples: &[(
            "cutover fleet abort --reason \"wrong release\"",
            "nobody switches any more, or all go back",
        )],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet waive",
        examples: &[("cutover fleet waive web-3 --reason \"disk died\"", "go on without this node")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet resume",
        examples: &[("cutover fleet resume", "follow the fleet again after a rollback by hand")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet export",
        examples: &[("cutover fleet export 17 >rollout", "for a node that is cut off")],
        exit: &[17],
        see: &["cutover-fleet-import(1)"],
    },
    More {
        command: "fleet import",
        examples: &[("cutover fleet import rollout", "what `fleet export` wrote elsewhere")],
        exit: &[17],
        see: &["cutover-fleet-export(1)"],
    },
    More {
        command: "fleet gc",
        examples: &[("cutover fleet gc --dry-run", "what would be removed of rollouts that ended long ago")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet repair",
        examples: &[("cutover fleet repair", "put back decisions that this node read and the storage lost")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet void",
        examples: &[("cutover fleet void --reason \"a torn file\"", "end a rollout whatever its files say")],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "fleet replace",
        examples: &[(
            "cutover fleet replace web-3 --reason \"new disk\"",
            "free the name for another machine",
        )],
        exit: &[17],
        see: &["cutover-fleet(7)"],
    },
    More {
        command: "config",
        examples: &[("cutover config check", "is the configuration right; silent when it is")],
        exit: &[],
        see: &["cutover.toml(5)"],
    },
    More {
        command: "config show",
        examples: &[("cutover config show", "the values in force, and the file each comes from")],
        exit: &[],
        see: &["cutover.toml(5)"],
    },
    More {
        command: "config check",
        examples: &[("cutover config check --config ./shop.toml", "before it is put in place")],
        exit: &[14, 15, 16],
        see: &["cutover.toml(5)"],
    },
    More {
        command: "config schema",
        examples: &[("cutover config schema >cutover.schema.json", "for editors that check while you type")],
        exit: &[],
        see: &["cutover.toml(5)"],
    },
    More {
        command: "report",
        examples: &[
            ("cutover report --html node.html", "this node's past, as a page"),
            ("cutover report --fleet /mnt/coord/shop-web --html fleet.html", "a fleet's rollouts"),
        ],
        exit: &[14, 16],
        see: &["cutover-log(1)"],
    },
    More {
        command: "completions",
        examples: &[("source <(cutover completions bash)", "for this shell; the packages install them")],
        exit: &[],
        see: &["cutover(1)"],
    },
];

impl More {
    /// What there is to say of a command, by its words without the program's name.
    pub fn of(command: &str) -> Option<&'static Self> {
        MORE.iter().find(|more| more.command == command)
    }

    /// All its exit codes, in order.
    pub fn exit_codes(&self) -> Vec<(u8, &'static str)> {
        let all = [0, 1, 2, 11];
        EXIT_CODES.into_iter().filter(|(code, _)| all.contains(code) || self.exit.contains(code)).collect()
    }

    /// As it stands below the options.
    fn help(&self) -> String {
        let mut lines = vec!["Examples:".to_owned()];
        for (typed, does) in self.examples {
            lines.push(format!("  {typed}"));
            lines.push(format!("      {does}"));
        }
        lines.push(String::new());
        lines.push("Exit status:".to_owned());
        lines.extend(self.exit_codes().iter().map(|(code, means)| format!("  {code:>2}  {means}")));
        lines.push(String::new());
        lines.push(format!("See also: {}", self.see.join(", ")));
        lines.join("\n")
    }
}

/// What the words say.
pub fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let parse = |command: Command| command.try_get_matches_from(words);
    match parse(few(words)).and_then(|words| Cli::from_arg_matches(&words)) {
        Ok(cli) => Ok(cli),
        // Help and what was wrong speak of all commands, and are for people.
        Err(_) => parse(command()).and_then(|words| Cli::from_arg_matches(&words)),
    }
}

/// The command line with the commands among these words only. Each option of all commands is copied to each command
/// that there is, which is most of the memory of a timer's run that finds nothing new.
fn few(words: &[OsString]) -> Command {
    let all = Cli::command();
    let typed = all.get_subcommands().filter(|command| words.iter().any(|word| word == command.get_name()));
    Global::augment_args(Command::new("cutover")).subcommands(typed.cloned())
}

/// The command line, each command with its examples.
pub fn command() -> Command {
    with_more(Cli::command(), "")
}

fn with_more(mut command: Command, words: &str) -> Command {
    for below in command.get_subcommands_mut() {
        let words = format!("{words} {}", below.get_name());
        *below = with_more(below.clone(), &words);
    }
    match More::of(words.trim_start()) {
        Some(more) => command.after_help(more.help()),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(command: &Command, words: &str, found: &mut BTreeSet<String>) {
        for below in
            command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
        {
            let words = format!("{words} {}", below.get_name()).trim_start().to_owned();
            names(below, &words, found);
            found.insert(words);
        }
    }

    #[test]
    fn every_command_has_examples_that_can_be_parsed_and_no_other_has() {
        let mut wanted = BTreeSet::new();
        names(&Cli::command(), "", &mut wanted);
        let have: BTreeSet<String> = MORE.iter().map(|more| more.command.to_owned()).collect();
        assert_eq!(have, wanted);
        for more in MORE {
            assert!(!more.examples.is_empty() && !more.see.is_empty(), "{}", more.command);
            for (typed, _) in more.examples {
                let typed = typed
                    .trim_start_matches("source <(")
                    .split(['|', '>', '&', ')'])
                    .next()
                    .unwrap_or_default();
                let mut words: Vec<OsString> = Vec::new();
                for (number, part) in typed.split(['"', '\'']).enumerate() {
                    match number % 2 {
                        0 => words.extend(part.split_whitespace().map(OsString::from)),
                        _ => words.push(part.into()),
                    }
                }
                let whole = command().try_get_matches_from(&words);
                let whole = whole.and_then(|words| Cli::from_arg_matches(&words));
                let few = few(&words).try_get_matches_from(&words);
                match (few.and_then(|words| Cli::from_arg_matches(&words)), whole) {
                    (Ok(few), Ok(whole)) => assert_eq!(format!("{few:?}"), format!("{whole:?}"), "{typed}"),
                    (few, whole) => panic!("{typed}: {:?}, {:?}", few.err(), whole.err()),
                }
            }
        }
    }

    #[test]
    fn help_fits_80_columns_but_for_what_is_to_be_typed() {
        fn look(command: &mut Command, words: &str) {
            let text = command.clone().term_width(80).render_long_help().to_string();
            let typed: Vec<String> =
                MORE.iter().flat_map(|more| more.examples).map(|(typed, _)| format!("  {typed}")).collect();
            for line in text.lines().filter(|line| line.chars().count() > 80) {
                assert!(
                    line.starts_with("Usage: ") || typed.iter().any(|typed| typed == line),
                    "{words}: {line}"
                );
            }
            for below in command.get_subcommands_mut() {
                let words = format!("{words} {}", below.get_name());
                look(below, &words);
            }
        }
        let mut all = command();
        all.build();
        look(&mut all, "cutover");
    }
}
