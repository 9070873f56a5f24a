//! A node's heartbeat: replaced again and again, believed by people, and deciding nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::board::{Board, Read};
use super::facts::{FORMAT, format_of, names};
use super::name::{CellName, NodeName};
use crate::types::{Digest, ReleaseId, Version};

/// The most releases that a heartbeat names.
const RELEASES_MAX: usize = 100;

/// The most letters of a reason that is one of many.
const WHY_MAX: usize = 1000;

/// To take part in a rollout of cells.
pub const CELLS: &str = "cells";

/// To take part in a rolling rollout whose slots are handed on.
pub const SLOTS: &str = "slots";

/// To read lists of members that have pages.
pub const PAGES: &str = "pages";

/// `nodes/<node>/alive`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alive {
    /// When, by the node's clock.
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Version>,
    /// What it could switch to at once, the one before this first.
    #[serde(default)]
    pub releases: Vec<ReleaseId>,
    /// The release before the one that runs, as the node would go back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReleaseId>,
    /// Which machine of this name it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What names the place where it runs, this boot: a copy of the node runs somewhere else.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// Where another machine runs that writes this heartbeat, too: it is told here as well, for storage that is full takes no new
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    /// What its cutover can, that an older one cannot: [`CELLS`], [`SLOTS`], [`PAGES`].
    #[serde(default)]
    pub knows: Vec<String>,
    /// The cell that it says it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellName>,
    /// Why it does not take part yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_yet: Option<NotYet>,
}

/// Why a node does not take part in what is open. Unlike a "no" it may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotYet {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<u64>,
    pub why: String,
    /// Until when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a node said last, if it did; or the format that it reads and writes, where that is another one.
pub type Spoken = Result<Option<Alive>, u32>;

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    kind: String,
    #[serde(flatten)]
    alive: Alive,
}

impl Alive {
    /// There, at this moment; nothing more is known.
    pub fn at(at: Timestamp) -> Self {
        let (instance, place) = (String::new(), String::new());
        Self {
            at,
            running: None,
            releases: Vec::new(),
            previous: None,
            instance,
            place,
            twin: None,
            knows: vec![CELLS.into(), SLOTS.into(), PAGES.into()],
            cell: None,
            not_yet: None,
        }
    }

    /// What is wanted of many: without what could be long.
    pub fn brief(self) -> Self {
        let is_known = |what: &String| [CELLS, SLOTS, PAGES].contains(&what.as_str());
        let short = |not_yet: NotYet| NotYet { why: not_yet.why.chars().take(WHY_MAX).collect(), ..not_yet };
        Self {
            running: self.running,
            knows: self.knows.into_iter().filter(is_known).take(3).collect(),
            cell: self.cell,
            not_yet: self.not_yet.map(short),
            ..Self::at(self.at)
        }
    }

    pub fn text(mut self) -> String {
        self.releases.truncate(RELEASES_MAX);
        let line = Line { format: FORMAT, kind: "alive".into(), alive: self };
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

/// What a node said last; nothing when it has said nothing that can be read.
pub fn read(board: &mut dyn Board, node: &NodeName) -> Option<Alive> {
    said_by(board.read(&names::alive(node))).ok().flatten()
}

/// What each of these nodes said last, in this order.
pub fn read_each(board: &mut dyn Board, nodes: &[NodeName], take: &mut dyn FnMut(&NodeName, Spoken)) {
    let names: Vec<String> = nodes.iter().map(names::alive).collect();
    board.read_each(&names, &mut |place, read| take(&nodes[place], said_by(read)));
}

/// What a node said in what was read.
///
/// # Errors
/// The format that it reads and writes, where that is another one.
pub fn said_by(read: Read) -> Spoken {
    let Read::Bytes(text) = read else { return Ok(None) };
    match serde_json::from_str::<Line>(&text) {
        Ok(line) if line.format == FORMAT && line.kind == "alive" => Ok(Some(line.alive)),
        Ok(_) | Err(_) => match text.lines().next().and_then(format_of) {
            Some(format) if format != FORMAT => Err(format),
            Some(_) | None => Ok(None),
        },
    }
}

/// The release that all of these could go back to from `current`: the newest that the fleet has kept and that is on all of
/// them; else one that ran on one of them before, as the first node orders them. Else what most of them have, and who lacks
/// it. `kept`: what the fleet has kept before, the newest first. What was only staged is no way back.
///
/// What a node had before goes second: one that somebody moved by hand has another one before it than the fleet.
pub fn common_way_back(
    nodes: &[(NodeName, Alive)],
    current: &Version,
    kept: &[Digest],
) -> Result<ReleaseId, NoWayBack> {
    let ran = |release: &ReleaseId| {
        // Right after a rollout a heartbeat says what the node ran before it: its next one says otherwise.
        let before = |alive: &Alive| {
            alive.previous.as_ref() == Some(release) || alive.running.as_ref() == Some(&release.version)
        };
        kept.contains(&release.digest) || nodes.iter().any(|(_, alive)| before(alive))
    };
    let mut known: Vec<&ReleaseId> = Vec::new();
    for release in nodes.iter().flat_map(|(_, alive)| &alive.releases) {
        if release.version != *current && ran(release) && !known.contains(&release) {
            known.push(release);
        }
    }
    let age = |release: &ReleaseId| kept.iter().position(|digest| *digest == release.digest);
    known.sort_by_key(|release| age(release).unwrap_or(kept.len()));
    let has = |alive: &Alive, release: &ReleaseId| {
        alive.releases.contains(release) || alive.running.as_ref() == Some(&release.version)
    };
    let lacking = |release: &ReleaseId| -> Vec<NodeName> {
        nodes.iter().filter(|(_, alive)| !has(alive, release)).map(|(node, _)| node.clone()).collect()
    };
    let best =
        known.into_iter().map(|release| (release, lacking(release))).min_by_key(|(_, lack)| lack.len());
    match best {
        Some((release, lack)) if lack.is_empty() => Ok(release.clone()),
        Some((release, lack)) => Err(NoWayBack { nearest: Some(release.clone()), lack }),
        None => Err(NoWayBack { nearest: None, lack: nodes.iter().map(|(node, _)| node.clone()).collect() }),
    }
}

/// There is no release that all could go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoWayBack {
    pub nearest: Option<ReleaseId>,
    pub lack: Vec<NodeName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, has: &[&str]) -> (NodeName, Alive) {
        let release = |version: &&str| ReleaseId {
            version: version.parse().unwrap(),
            digest: Digest::of(version.as_bytes()),
        };
        let releases = has.iter().map(release).collect();
        let at = Timestamp::UNIX_EPOCH;
        let running = Some("3".parse().unwrap());
        (name.parse().unwrap(), Alive { running, releases, ..Alive::at(at) })
    }

    #[test]
    fn all_go_back_to_what_all_have_or_it_is_said_who_lacks_it() {
        let current: Version = "3".parse().unwrap();
        let kept = ["2", "1"].map(|version| Digest::of(version.as_bytes()));
        let found = |nodes: &[(NodeName, Alive)]| common_way_back(nodes, &current, &kept);
        let all = [node("a", &["2", "1", "3"]), node("b", &["2", "1"]), node("c", &["1", "2"])];
        assert_eq!(found(&all).unwrap().version.as_str(), "2");
        let older = [node("a", &["2", "1"]), node("b", &["1"])];
        assert_eq!(found(&older).unwrap().version.as_str(), "1");
        let none = [node("a", &["2"]), node("b", &["2", "3"]), node("c", &["1"])];
        let missing = found(&none).unwrap_err();
        assert_eq!(missing.nearest.unwrap().version.as_str(), "2");
        assert_eq!(missing.lack, ["c".parse().unwrap()]);
        assert!(found(&[node("a", &["3"])]).unwrap_err().nearest.is_none());
    }

    #[test]
    fn what_was_only_staged_is_no_way_back() {
        let current: Version = "3".parse().unwrap();
        let mut all = [node("a", &["4", "2", "3"]), node("b", &["4", "2"])];
        assert!(common_way_back(&all, &current, &[]).unwrap_err().nearest.is_none());
        all[1].1.previous = Some(all[1].1.releases[1].clone());
        assert_eq!(common_way_back(&all, &current, &[]).unwrap().version.as_str(), "2");
    }

    #[test]
    fn who_was_moved_by_hand_does_not_say_where_all_go_back_to() {
        let kept = ["3", "2"].map(|version| Digest::of(version.as_bytes()));
        let mut all = [node("a", &["1", "3", "2"]), node("b", &["2", "3", "1"])];
        all[0].1.running = Some("2".parse().unwrap());
        for (_, alive) in &mut all {
            alive.previous = Some(alive.releases[0].clone());
        }
        let back = common_way_back(&all, &"3".parse().unwrap(), &kept);
        assert_eq!(back.unwrap().version.as_str(), "2");
    }

    #[test]
    fn a_heartbeat_is_read_as_it_was_written() {
        let (_, alive) = node("a", &["2"]);
        let line: Line = serde_json::from_str(&alive.clone().text()).unwrap();
        assert_eq!(line.alive, alive);
    }
}
