//! What a node must not forget of its fleet: `.cutover/fleet.json`, written before storage is told anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::agreement::Error;
use super::pages::Pages;
use crate::coord::rules::gate::Gate;
use crate::coord::rules::{rolling, synchronous};
use crate::coord::{NodeName, rollout::Rollout};
use crate::store::{Damage, kept};
use crate::sys::disk::Disk;
use crate::sys::lock::{self, Lock};
use crate::types::record::{Deadline, Moments};
use crate::types::{Digest, ReleaseId, Version};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    pub fleet: String,
    pub node: NodeName,
    /// Made once, at random: what a second machine of this name does not have.
    pub instance: String,
    /// Whether storage has this machine under this name: without it nothing else counts.
    #[serde(default)]
    pub joined: bool,
    /// The public half of the key that it signs its facts with.
    #[serde(default)]
    pub key: Option<String>,
    /// Where this node runs, and ran before: see `coord::alive`. The last is the newest.
    #[serde(default)]
    pub places: Vec<String>,
    /// When it came to the newest place from one where it had just been at work, in ms of the clock of this boot: for a while
    /// after it this may be a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_ms: Option<u64>,
    /// The highest member list that was seen: an older one does not come back.
    #[serde(default)]
    pub list: u32,
    /// A person has put this node elsewhere than this rollout and those before it would.
    #[serde(default)]
    pub stays_after: Option<u64>,
    /// The rollout that said what runs here when it was looked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<Followed>,
    pub part: Option<Part>,
    /// The last one that this node had a part in, as it has read it: to be put back where storage has lost it.
    #[serde(default)]
    pub last: Option<Last>,
}

impl Own {
    /// A list that was replaced does not come back: it may name a key that was taken out. `newest`: that of the storage; 0
    /// where it has none. `bad`: a newer one that does not count there, and why.
    pub fn ensure_list_is_newest(&self, newest: u32, bad: Option<(u32, String)>) -> Result<(), String> {
        let known = self.list;
        if newest >= known {
            return Ok(());
        }
        if let Some((number, why)) = bad.filter(|(number, _)| *number >= known) {
            return Err(format!(
                "list of members {number} does not count here: {why}; put that right, or write the list anew where an operator's \
                 key is trusted: `cutover fleet members --all`"
            ));
        }
        let found =
            if newest == 0 { "none is valid there".into() } else { format!("the newest there is {newest}") };
        Err(format!(
            "the storage went back in time: this node has seen list of members {known}, and {found}; bring back `members/` as it \
             was, or write the list anew on this node: `cutover fleet members` shows who is in it, and with `--remove` (of all who \
             were removed before), `--add` or `--all` it writes list {}",
            known.saturating_add(1)
        ))
    }
}

/// A rollout that was kept, and by which this node runs its release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    pub rollout: u64,
    /// The digest of its proposal.
    pub proposal: Digest,
}

/// A rollout that has ended, as it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Last {
    pub rollout: u64,
    pub proposal: String,
    /// Its gates, and their files.
    pub gates: BTreeMap<String, String>,
}

/// The part that this node plays in a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub rollout: u64,
    /// The proposal's file, so that its end can be told without reading it again.
    pub proposal: String,
    pub release: ReleaseId,
    pub stage: Stage,
    /// The gates that were read, as they stood on storage: gate and file. Of a rolling rollout what else was said of it, too.
    pub gates: BTreeMap<String, String>,
    /// What it told last that others go by, as it stood on storage: name and file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<(String, String)>,
    /// An operator has waived it, as a file showed that somebody carried here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waived: bool,
    /// What it runs, for its last fact.
    pub running: Option<Version>,
    /// It has rehearsed the release, and all was well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rehearsed: bool,
    /// It ran the release already when it was taken up: it goes along, and switches nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_along: bool,
    /// A moment of both clocks, when the wall clock was last compared with the storage's: from then on time goes by
    /// the one that does not jump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Deadline>,
    /// Why it failed or left.
    pub why: Option<String>,
    /// The kind of reason, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// It went back by an operator's hand after it had promised to wait.
    pub by_hand: bool,
    /// How long its service was away.
    pub downtime_ms: Option<u64>,
    /// Rolling: since when the open wave is done, as this node saw it.
    pub soaking: Option<Soaking>,
    /// Since when it has promised to wait for an outcome, and could not ask.
    pub in_doubt_since: Option<Timestamp>,
    /// When it goes back all the same, where it is configured to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubts_until: Option<Deadline>,
    /// When it stopped, switched and started.
    #[serde(default)]
    pub moments: Moments,
    #[serde(default)]
    pub before: Option<Version>,
    /// When it had gone back, if it did.
    #[serde(default)]
    pub back_at: Option<Timestamp>,
    /// Its last fact is on storage.
    pub closed: bool,
}

/// A wave that is done and rests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soaking {
    pub wave: u32,
    pub until: Deadline,
}

/// What somebody has carried here of a rollout, and this node believes; while another process follows the rollout it is handed
/// to that one in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    pub rollout: u64,
    /// Gate and file.
    pub gates: BTreeMap<String, String>,
    /// As in [`Part::told`], where that is older or missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<(String, String)>,
    /// As in [`Part::waived`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waived: bool,
}

/// Where a node stands in a rollout of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum Stage {
    Synchronous(synchronous::Stage),
    /// A few at a time.
    Rolling(rolling::Stage),
}

impl Part {
    /// Whether this node has nothing to keep to: it has not switched, or it has ended.
    pub fn is_free(&self) -> bool {
        match self.stage {
            Stage::Synchronous(stage) => {
                stage.is_final() || matches!(stage, synchronous::Stage::Idle | synchronous::Stage::Voting)
            }
            Stage::Rolling(stage) => {
                !matches!(stage, rolling::Stage::Taking { .. } | rolling::Stage::Returning { .. })
            }
        }
    }

    /// Takes over what was carried here, and is not known yet.
    pub fn take_over(&mut self, carried: Carried) {
        for (gate, text) in carried.gates {
            self.gates.entry(gate).or_insert(text);
        }
        self.told = carried.told.or(self.told.take());
        self.waived |= carried.waived;
    }

    /// A part just taken up.
    pub fn new(rollout: &Rollout, proposal: String, stage: Stage, running: Option<Version>) -> Self {
        let wanted = &rollout.proposal.release;
        Self {
            rollout: rollout.number,
            proposal,
            release: ReleaseId { version: wanted.version.clone(), digest: wanted.digest },
            stage,
            gates: BTreeMap::new(),
            told: None,
            waived: false,
            before: running.clone(),
            running,
            goes_along: false,
            anchor: None,
            why: None,
            cause: None,
            by_hand: false,
            downtime_ms: None,
            rehearsed: false,
            soaking: None,
            in_doubt_since: None,
            doubts_until: None,
            moments: Moments::default(),
            back_at: None,
            closed: false,
        }
    }
}

/// Whether it is the name of a decision that is made once: by all, or by a cell.
pub(super) fn is_gate(name: &str) -> bool {
    gate_of(name).is_some()
}

/// Which gate a name in a rollout's directory is: `outcome` for all, `outcome.ams-2` for a cell.
pub(super) fn gate_of(name: &str) -> Option<Gate> {
    let (gate, _) = name.split_once('.').unwrap_or((name, ""));
    Gate::ALL.into_iter().find(|known| known.name() == gate)
}

/// What was said of a rolling rollout beside its gates, and can be said again: a halt, waivers. Name and file.
pub fn said_of(part: &Part) -> BTreeMap<String, String> {
    let said = part.gates.iter().filter(|(name, _)| !is_gate(name));
    said.map(|(name, text)| (name.clone(), text.clone())).collect()
}

/// The file, and where it is.
#[derive(Clone)]
pub struct Kept {
    disk: Disk,
    path: PathBuf,
    pub own: Own,
    /// What stood there when it was read or written last.
    seen: Option<Own>,
}

/// How long the lock of the file is waited for: others hold it for one write.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

impl Kept {
    /// Reads the file; `None` when the node has not joined.
    pub fn load(disk: &Disk, path: &Path) -> Result<Option<Self>, Error> {
        match kept::load(path)? {
            kept::Kept::Missing => Ok(None),
            kept::Kept::Whole(own) => {
                let seen: Option<Own> = Some(own);
                Ok(seen.clone().map(|own| Self { disk: disk.clone(), path: path.to_owned(), own, seen }))
            }
            kept::Kept::Damaged(why) => Err(damaged(path, &why)),
        }
    }

    /// The file of a node that joins. Not yet written.
    pub fn new(disk: &Disk, path: &Path, fleet: String, node: NodeName, instance: String) -> Self {
        let own = Own {
            fleet,
            node,
            instance,
            joined: false,
            key: None,
            places: Vec::new(),
            arrived_ms: None,
            list: 0,
            stays_after: None,
            followed: None,
            part: None,
            last: None,
        };
        Self { disk: disk.clone(), path: path.to_owned(), own, seen: None }
    }

    /// The file of a node that joins once more, as another machine: what it held counts no more.
    pub fn begin_anew(self, fresh: Self) -> Self {
        Self { own: fresh.own, ..self }
    }

    /// Writes it down, durably: with the file's own lock, and only over what was read.
    ///
    /// # Errors
    /// When somebody else has changed it meanwhile: what was decided by the old content counts no more.
    pub fn keep(&mut self) -> Result<(), Error> {
        let path = self.path.display().to_string();
        let Some(_lock) = lock::wait_for(&self.path.with_extension("lock"), LOCK_LIMIT)? else {
            return Err(Error::Overtaken { path });
        };
        let there = match kept::load(&self.path)? {
            kept::Kept::Missing => None,
            kept::Kept::Whole(own) => Some(own),
            kept::Kept::Damaged(why) => return Err(damaged(&self.path, &why)),
        };
        if there != self.seen && there.as_ref() != Some(&self.own) {
            return Err(Error::Overtaken { path });
        }
        kept::save(&self.disk, &self.path, &self.own)?;
        self.seen = Some(self.own.clone());
        Ok(())
    }

    pub fn forget(&self) -> Result<(), Error> {
        self.pages().forget_others(&[]);
        Ok(self.disk.remove_file(&self.path)?)
    }

    /// Changes what is kept, and writes it down; on an error nothing has changed.
    pub fn change(&mut self, change: impl FnOnce(&mut Own)) -> Result<(), Error> {
        let before = self.own.clone();
        change(&mut self.own);
        if self.own == before {
            return Ok(());
        }
        self.keep().inspect_err(|_| self.own = before)
    }

    /// Where that is put which somebody has carried here while another process holds this file.
    fn carried_path(&self) -> PathBuf {
        self.path.with_file_name("fleet-carried.json")
    }

    fn lock_carried(&self) -> Result<Lock, Error> {
        let path = self.carried_path().with_extension("lock");
        let busy = || Error::Overtaken { path: path.display().to_string() };
        lock::wait_for(&path, LOCK_LIMIT)?.ok_or_else(busy)
    }

    /// Hands to the process that follows the rollout what was carried here.
    pub fn hand(&self, carried: &Carried) -> Result<(), Error> {
        let _lock = self.lock_carried()?;
        Ok(kept::save(&self.disk, &self.carried_path(), carried)?)
    }

    /// Takes over what was handed to this process, once; what came too late for its rollout is nothing. Says whether there
    /// was something.
    pub(super) fn take_handed(&mut self) -> Result<bool, Error> {
        let path = self.carried_path();
        if !path.exists() {
            return Ok(false);
        }
        let _lock = self.lock_carried()?;
        let carried: Carried = match kept::load(&path)? {
            kept::Kept::Missing => return Ok(false),
            kept::Kept::Whole(carried) => carried,
            kept::Kept::Damaged(why) => {
                self.disk.remove_file(&path)?;
                return Err(damaged(&path, &why));
            }
        };
        self.change(|own| {
            if let Some(part) = own.part.as_mut().filter(|part| part.rollout == carried.rollout) {
                part.take_over(carried);
            }
        })?;
        self.disk.remove_file(&path)?;
        Ok(true)
    }

    /// The pages of lists of members that were read.
    pub(super) fn pages(&self) -> Pages {
        Pages::new(self.disk.clone(), self.path.with_file_name("fleet-pages"))
    }

    pub fn part(&self) -> Option<&Part> {
        self.own.part.as_ref()
    }

    /// The digest of the proposal under way.
    pub fn proposal_digest(&self) -> Option<Digest> {
        self.part().map(|part| Digest::of(part.proposal.as_bytes()))
    }
}

fn damaged(path: &Path, why: &Damage) -> Error {
    Error::Record { path: path.display().to_string(), why: why.to_string() }
}
