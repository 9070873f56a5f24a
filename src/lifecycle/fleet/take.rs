//! Between updates: finishing what is left of a rollout, and taking up what the fleet wants.
//!
//! What the fleet wants is a function of the board: the open rollout that this node is a member of; without one, the newest
//! rollout that was kept and is meant for this node, compared with what runs here.

use super::super::agreement::Error;
use super::meant::Meant;
use super::own::{Last, Part};
use super::rolling::Next;
use super::{Following, Member, Stage};
use crate::coord::board::Read;
use crate::coord::facts::names::Decisions;
use crate::coord::facts::{Members, names};
use crate::coord::lists;
use crate::coord::look::{Found, Look, look_signed};
use crate::coord::rollout::{Rollout, WENT_BACK, look_rollout, numbers};
use crate::coord::rules::gate::{self, Gate};
use crate::coord::rules::rolling::{End, Stage as Place};
use crate::coord::rules::synchronous::{Outcome, Stage as Step};
use crate::coord::settings::{Facts, Mode, Overlap};
use crate::coord::standing::{Standing, removed, standing};
use crate::types::{Digest, ReleaseId};

/// How many proposals are looked at in one run; those that say nothing do not count.
const PROPOSALS_MAX: usize = 1000;

/// What the fleet wants of this node now.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Nothing; what it waits for, if for anything.
    Nothing(Option<String>),
    /// Stage this release for this rollout, and begin the update; or refuse it. Where it runs already, go along.
    Rollout {
        number: u64,
        release: ReleaseId,
        /// Whether the rollout demands that it is rehearsed.
        must_rehearse: bool,
    },
    /// The rollout was halted: go back to this release. It is this node's turn.
    GoBack {
        number: u64,
        version: crate::types::Version,
    },
    /// The rollout was halted, and this node is to go back when there is a place for it: ask again after this time.
    Queue(std::time::Duration),
    /// The fleet runs this release since a rollout that this node missed: update to it alone.
    CatchUp {
        number: u64,
        release: ReleaseId,
    },
    Unreachable(String),
    /// This node is not the one that goes by its name: it has no part in anything.
    Stranger(String),
}

/// What a look at all rollouts came to, from the newest to the one that counts.
#[derive(Default)]
struct Survey {
    /// The oldest of those that are open, and that this node is a member of.
    open: Option<Rollout>,
    /// The newest that says what runs here.
    runs: Option<Rollout>,
    /// There is one that this node would follow if it were listed.
    is_unlisted: bool,
    /// Nobody can tell how the newest stands.
    bad: Option<String>,
    /// A newer one was torn, which may be what the fleet runs.
    torn: Option<String>,
}

impl Member<'_> {
    /// Finishes what is left of the last rollout, and looks for the next. Called when no update is under way.
    pub fn take_up(&mut self, running: Option<&ReleaseId>) -> Result<Taken, Error> {
        if let Some(taken) = self.identify()? {
            return Ok(taken);
        }
        if let Some(taken) = self.tend(running)? {
            return Ok(taken);
        }
        self.beat();
        if let Err(why) = self.ensure_last_is_there() {
            return Ok(Taken::Unreachable(why));
        }
        let list = match self.look_at_members() {
            Ok(list) => list,
            Err(why) => return Ok(Taken::Unreachable(why)),
        };
        let newest = list.as_ref().map_or(0, |list| list.list);
        let (fleet, trust) = (self.kept.own.fleet.clone(), self.trust());
        let is_old = newest < self.kept.own.list;
        let bad = if is_old { lists::newest_bad(self.board.as_mut(), newest, &fleet, trust) } else { None };
        if let Err(why) = self.kept.own.ensure_list_is_newest(newest, bad) {
            // Whoever waits for this node's vote cannot know it.
            self.say_not_yet(&why, None);
            return Ok(Taken::Unreachable(why));
        }
        self.kept.change(|own| own.list = newest)?;
        let survey = match self.survey(list.as_ref()) {
            Ok(survey) => survey,
            Err(why) => return Ok(Taken::Unreachable(why)),
        };
        if let Some(rollout) = survey.open {
            return self.begin(rollout, running);
        }
        if let Some(rollout) = &survey.runs
            && running.map(|running| running.digest) == Some(rollout.proposal.release.digest)
        {
            super::logged("remember what the fleet runs", self.note_followed(rollout));
        }
        match survey.runs.map(|rollout| (rollout.number, rollout.proposal.release.clone())) {
            Some((number, wanted)) if self.kept.own.stays_after.is_some_and(|put| number <= put) => {
                let stays = running.map(|running| running.digest) != Some(wanted.digest);
                Ok(Taken::Nothing(stays.then(|| {
                    format!(
                        "the fleet runs release {} since rollout {number}, and a person has put this node elsewhere: `cutover fleet \
                         resume` lets it follow",
                        wanted.version
                    )
                })))
            }
            Some((number, wanted)) if running.map(|running| running.digest) != Some(wanted.digest) => {
                if let Some(why) = survey.torn {
                    return Ok(Taken::Nothing(Some(why)));
                }
                match self.has_followed_newer(number) {
                    Ok(false) => {}
                    Ok(true) => return Ok(Taken::Nothing(None)),
                    Err(why) => return Ok(Taken::Unreachable(why)),
                }
                let release = ReleaseId { version: wanted.version, digest: wanted.digest };
                Ok(Taken::CatchUp { number, release })
            }
            _ if survey.is_unlisted => {
                let node = self.node();
                Ok(Taken::Nothing(Some(format!(
                    "this node, as it is now, is in no list of members: `cutover fleet members --add {node}`"
                ))))
            }
            _ => Ok(Taken::Nothing(survey.bad)),
        }
    }

    fn look_at_members(&mut self) -> Result<Option<Members>, String> {
        let (fleet, trust) = (self.kept.own.fleet.clone(), self.trust());
        lists::members(self.board.as_mut(), &fleet, trust).map_err(|error| error.to_string())
    }

    /// Looks at the rollouts, the newest first, until one says what the fleet runs. `list`: of members, the newest.
    fn survey(&mut self, list: Option<&Members>) -> Result<Survey, String> {
        let mut survey = Survey::default();
        let (numbers, _) = numbers(self.board.as_mut())?;
        let (mut left, mut says_nothing) = (PROPOSALS_MAX, Vec::new());
        for number in numbers.into_iter().rev() {
            let (fleet, trust) = (self.kept.own.fleet.clone(), self.trust());
            let rollout = match look_rollout(self.board.as_mut(), number, &fleet, trust) {
                Look::Found(rollout) => rollout,
                // Nobody goes back to an older one because of a bad look.
                Look::Absent => return Err(format!("rollout {number} is listed, and cannot be read yet")),
                Look::Bad(why) => {
                    says_nothing.push((number, why));
                    continue;
                }
                Look::Unreachable(why) => return Err(why),
            };
            if left == 0 {
                break;
            }
            left -= 1;
            let node = self.node();
            let is_member =
                rollout.place_of(&node).is_some() && rollout.is_of(&node, &self.kept.own.instance);
            let voice = self.voice();
            let stands = match self.seen_halted(&rollout)? {
                Some(stands) => stands,
                None => standing(self.board.as_mut(), &rollout, voice)?,
            };
            match stands {
                Standing::Open if is_member => survey.open = Some(rollout),
                // It names the machine that had this name before.
                Standing::Open if rollout.place_of(&node).is_some() => survey.is_unlisted = true,
                // Others are at it.
                Standing::Open => {}
                Standing::Bad(why) => {
                    let text = format!("rollout {number}: {why}; `cutover fleet abort` ends it");
                    survey.bad.get_or_insert(text);
                }
                Standing::Ended(ended) => match self.is_meant(&rollout, ended.how, list)? {
                    Meant::ForMe => {
                        survey.runs = Some(rollout);
                        break;
                    }
                    Meant::ForOthers => {}
                    Meant::Unlisted => survey.is_unlisted = true,
                },
            }
        }
        if let Some((rollout, why)) = says_nothing.first() {
            tracing::warn!(rollout, %why, count = says_nothing.len(), "proposals are not valid");
        }
        survey.torn = self.torn_of(&says_nothing)?;
        Ok(survey)
    }

    /// The rollout that this node ended last must still be there, with its end, or have been removed in good order: else it
    /// would be taken up once more.
    fn ensure_last_is_there(&mut self) -> Result<(), String> {
        let Some(last) = self.kept.own.last.clone() else { return Ok(()) };
        let number = last.rollout;
        let proposal = Digest::of(last.proposal.as_bytes());
        if self.ensure_is_there(number, proposal)?.is_some() {
            return Ok(());
        }
        let decisions = Decisions { rollout: number, proposal };
        let Some(gate) = Gate::ALL.into_iter().rev().find(|gate| last.gates.contains_key(gate.name())) else {
            return Ok(());
        };
        let trust = self.trust();
        match self.board.read(&decisions.gate(gate.name())) {
            Read::Bytes(_) | Read::Bad(_) => Ok(()),
            Read::Unreachable(why) => Err(why),
            Read::Absent => match removed(self.board.as_mut(), number, trust)? {
                Some(_) => Ok(()),
                None => {
                    Err(format!("how rollout {number} ended, which this node has read, is gone: {WENT_BACK}"))
                }
            },
        }
    }

    /// How a rollout that was removed had ended; nothing while it is there. An error when another one stands in its place,
    /// or nothing does.
    pub(super) fn ensure_is_there(
        &mut self,
        number: u64,
        proposal: Digest,
    ) -> Result<Option<String>, String> {
        match self.board.read(&names::proposal(number)) {
            Read::Bytes(text) if Digest::of(text.as_bytes()) == proposal => return Ok(None),
            Read::Bytes(_) => {
                return Err(format!("rollout {number} is not the one that this node has read: {WENT_BACK}"));
            }
            // It may be a bad look only.
            Read::Bad(_) => return Ok(None),
            Read::Unreachable(why) => return Err(why),
            Read::Absent => {}
        }
        let trust = self.trust();
        match removed(self.board.as_mut(), number, trust)? {
            Some(removed) if removed.proposal == proposal => Ok(Some(removed.ended)),
            _ => Err(format!("rollout {number}, which this node has read, is gone: {WENT_BACK}")),
        }
    }

    /// Takes part: from now on the node remembers it.
    fn begin(&mut self, rollout: Rollout, running: Option<&ReleaseId>) -> Result<Taken, Error> {
        let number = rollout.number;
        let trust = self.trust();
        // Its "no" would not count either: all would wait for it.
        if let Some(why) = self.without_key(rollout.is_signed()) {
            return Ok(Taken::Stranger(why));
        }
        let text = match look_signed(self.board.as_mut(), &names::proposal(number), trust) {
            Look::Found(Found { digest, text, .. }) if digest == rollout.digest => text,
            Look::Unreachable(why) => return Ok(Taken::Unreachable(why)),
            _ => return Ok(Taken::Unreachable("the proposal has changed".into())),
        };
        let stage = match rollout.proposal.mode {
            Mode::Rolling => Stage::Rolling(Place::Waiting),
            Mode::Synchronous | Mode::Cells | Mode::Independent => Stage::Synchronous(Step::Idle),
        };
        let mut part = Part::new(&rollout, text, stage, running.map(|running| running.version.clone()));
        let release = part.release.clone();
        part.goes_along = running == Some(&release);
        let must_rehearse = rollout.proposal.overlap == Overlap::Rehearsed && !part.goes_along;
        self.following = None;
        let why_not = self.unsigned(&rollout);
        if let Err(why) = self.keep_pages(&rollout) {
            return Ok(Taken::Unreachable(why));
        }
        self.kept.change(|own| own.part = Some(part))?;
        if let Some(why) = why_not {
            self.refuse(&why)?;
            return Ok(Taken::Nothing(Some(format!("rollout {number}: {why}"))));
        }
        Ok(Taken::Rollout { number, release, must_rehearse })
    }

    /// Why this node's word would not count in a rollout, or others' words would be worth less than its settings want.
    fn unsigned(&self, rollout: &Rollout) -> Option<String> {
        let listed = rollout.proposal.keys.get(&self.kept.own.node);
        match (listed, &self.kept.own.key) {
            (None, _) if self.settings.facts == Facts::Signed => Some(
                "`fleet.facts` is `signed` here, and the proposal does not name the members' keys".into(),
            ),
            (Some(listed), own) if own.as_ref() != Some(listed) => {
                Some("the proposal names another key than this node has".into())
            }
            _ => None,
        }
    }

    /// Finishes the rollout that this node has a part in. `None`: there is none, or it is over.
    fn tend(&mut self, running: Option<&ReleaseId>) -> Result<Option<Taken>, Error> {
        if self.kept.part().is_none() {
            return Ok(None);
        }
        self.follow()?;
        if let Err(why) = self.learn_removed_end() {
            return Ok(Some(Taken::Unreachable(why)));
        }
        self.drop_what_was_not_begun()?;
        let Some(part) = self.kept.part().cloned() else { return Ok(None) };
        let waiting = |member: &Self| {
            let why = match &member.trouble {
                Some(why) => return Some(Taken::Unreachable(why.clone())),
                None => member.open_still(&part),
            };
            Some(Taken::Nothing(Some(why)))
        };
        let release = part.release.clone();
        let again = |rollout: &Rollout| Taken::Rollout {
            number: rollout.number,
            release: release.clone(),
            must_rehearse: rollout.proposal.overlap == Overlap::Rehearsed && !part.goes_along,
        };
        let is_over = match (part.stage, &self.following) {
            // Interrupted before anything was changed: the update is begun again.
            (
                Stage::Synchronous(Step::Idle | Step::Voting | Step::Arming { .. }),
                Some(Following::Synchronous(f)),
            ) => {
                return Ok(Some(again(&f.rollout)));
            }
            (Stage::Synchronous(stage), Some(Following::Synchronous(f)))
                if part.goes_along && !stage.is_final() =>
            {
                return Ok(Some(again(&f.rollout)));
            }
            (Stage::Rolling(Place::Waiting | Place::Taking { .. }), Some(Following::Rolling(f))) => {
                return Ok(Some(again(&f.rollout)));
            }
            (Stage::Rolling(_), Some(Following::Rolling(_))) => {
                match (self.look_in_rolling()?, part.before.clone()) {
                    (Next::GoBack, Some(version)) if running.is_some_and(|is| is.version == version) => {
                        self.came_back(Some(version), None)?;
                        self.has_ended_rolling()
                    }
                    (Next::GoBack, Some(version)) => {
                        return Ok(Some(Taken::GoBack { number: part.rollout, version }));
                    }
                    _ if self.must_go_back() => return Ok(Some(Taken::Queue(self.pause_rolling()))),
                    _ => self.has_ended_rolling(),
                }
            }
            (Stage::Synchronous(_), _) => {
                self.see_off()?;
                match self.has_ended_for_all_cells()? {
                    Some(has_ended) => has_ended,
                    None => self.has_ended_synchronous(),
                }
            }
            (Stage::Rolling(_), _) => false,
        };
        if !is_over {
            self.look_for_last_word()?;
        }
        self.close()?;
        let is_closed = self.kept.part().is_none_or(|part| part.closed);
        if !is_over || !is_closed {
            return Ok(waiting(self));
        }
        self.forget_part()?;
        Ok(None)
    }

    /// Other cells wait until all nodes of one that goes back have said their last word. Where storage has lost this node's, it is
    /// said again.
    fn look_for_last_word(&mut self) -> Result<(), Error> {
        let went_back = |part: &&Part| {
            part.closed && matches!(part.stage, Stage::Synchronous(Step::GoneBack | Step::Left))
        };
        let Some(rollout) = self.kept.part().filter(went_back).map(|part| part.rollout) else {
            return Ok(());
        };
        let name = names::own(&self.node(), rollout, "closed");
        if self.cells.is_some() && self.board.read(&name) == Read::Absent {
            self.change_part(|part| part.closed = false)?;
        }
        Ok(())
    }

    /// The rollout is over for this node: what was read of it is kept as that of the last one.
    fn forget_part(&mut self) -> Result<(), Error> {
        let turns = self.cells.take().map(Following::Rolling);
        let outcome = turns.or(self.following.take()).and_then(Following::outcome);
        self.following = None;
        self.kept.change(|own| {
            if let Some(mut part) = own.part.take() {
                if part.by_hand {
                    own.stays_after = Some(part.rollout);
                }
                part.gates.extend(outcome.map(|text| ("outcome".to_owned(), text)));
                own.last = Some(Last { rollout: part.rollout, proposal: part.proposal, gates: part.gates });
            }
        })
    }

    /// A rollout that ended before this node had begun: whatever keeps the node from it, the next one may come.
    fn drop_what_was_not_begun(&mut self) -> Result<(), Error> {
        let stage = match self.kept.part().map(|part| part.stage) {
            Some(Stage::Synchronous(Step::Idle | Step::Voting)) if self.has_ended_synchronous() => {
                Stage::Synchronous(if self.was_kept() { Step::Left } else { Step::GoneBack })
            }
            Some(Stage::Synchronous(Step::Idle | Step::Voting)) if self.is_over_for_this_cell() => {
                Stage::Synchronous(Step::GoneBack)
            }
            Some(Stage::Rolling(Place::Waiting)) if self.is_off_rolling() => Stage::Rolling(Place::Over),
            _ => return Ok(()),
        };
        self.enter(stage)
    }

    /// Where the facts of the rollout under way were removed, the mark that stands for them says how it had ended; without
    /// it nobody decides anything.
    pub(super) fn learn_removed_end(&mut self) -> Result<(), String> {
        let part = self.kept.part().map(|part| part.rollout).zip(self.kept.proposal_digest());
        let Some((number, proposal)) = part else { return Ok(()) };
        let Some(ended) = self.ensure_is_there(number, proposal)? else { return Ok(()) };
        let why = "its facts were removed since";
        match &mut self.following {
            Some(Following::Synchronous(follow)) => {
                if let Some(turns) = &mut self.cells {
                    turns.end_as(&ended, why);
                }
                follow.end(&ended, why);
            }
            Some(Following::Rolling(follow)) => follow.end_as(&ended, why),
            None => {}
        }
        logged_close(self.change_part(|part| part.closed = true));
        Ok(())
    }

    fn must_go_back(&self) -> bool {
        let is_done =
            matches!(self.kept.part().map(|part| part.stage), Some(Stage::Rolling(Place::Done { .. })));
        match &self.following {
            Some(Following::Rolling(follow)) => is_done && follow.view.must_undo(follow.limits()),
            Some(Following::Synchronous(_)) | None => false,
        }
    }

    fn has_ended_synchronous(&mut self) -> bool {
        let Some((board, follow)) = self.on_synchronous() else { return false };
        if gate::ended(&follow.view).is_some() {
            return true;
        }
        let mut heard = follow.read_gates(board);
        // A node that has left learns of an operator's end, too.
        if heard.is_yes() && gate::ended(&follow.view).is_none() {
            heard = follow.read_void(board);
        }
        let has_ended = gate::ended(&follow.view).is_some();
        self.heed(&heard);
        super::logged("remember how it ended", self.note_gates());
        has_ended
    }

    /// Whether the outcome of the part under way was that all keep the release.
    pub fn was_kept(&self) -> bool {
        match &self.following {
            Some(Following::Synchronous(follow)) => follow.view.outcome == Some(Outcome::Keep),
            Some(Following::Rolling(follow)) => follow.view.end == Some(End::Keep),
            None => false,
        }
    }
}

fn logged_close(result: Result<(), Error>) {
    super::logged("note that the rollout is closed", result);
}
