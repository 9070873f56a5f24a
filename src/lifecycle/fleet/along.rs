//! Taking part without an update: saying no, saying "not yet", and going along with a release that runs already.

use std::time::Duration;

use super::super::agreement::Error;
use super::rolling::Next as RollingNext;
use super::synchronous::Next;
use super::{Member, Stage};
use crate::coord::alive::{self, NotYet};
use crate::coord::facts::{self, Fact, Yes};
use crate::coord::heard::Heard;
use crate::coord::rules::rolling::Stage as Place;
use crate::coord::rules::synchronous::{Decision, Plan, Stage as Step};
use crate::coord::rules::{Checks, Health};
use crate::coord::settings::Overlap;
use crate::coord::synchronous::What;
use crate::types::Version;

/// How far going along has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Along {
    /// Ask again after this time; what is waited for.
    Wait(Duration, String),
    /// It has ended; when the fleet does not keep the release, how.
    Ended(Option<String>),
}

impl Member<'_> {
    /// Votes no: this node cannot. The others need not wait. In a rolling rollout it may yet come to it.
    pub fn refuse(&mut self, why: &str) -> Result<(), Error> {
        self.follow()?;
        let Some(part) = self.kept.part().cloned() else { return Ok(()) };
        self.say_not_yet(why, None);
        let (node, instance, now) = (self.node(), self.instance(), self.clock.wall());
        let text = why.to_owned();
        self.change_part(|part| part.why = Some(text))?;
        if let Stage::Rolling(stage) = part.stage {
            return self.refuse_rolling(stage, why);
        }
        self.enter(Stage::Synchronous(Step::Left))?;
        let Some((board, follow)) = self.on_synchronous() else {
            return Ok(());
        };
        let (rollout, proposal) = (follow.rollout.number, follow.rollout.digest);
        let vote = Fact::Vote(facts::Vote {
            rollout,
            proposal,
            node: node.clone(),
            instance,
            vote: Yes::No,
            why: Some(why.to_owned()),
            running: part.running,
            beside: None,
        });
        let me = follow.view.me;
        let mut heard = follow.tell(board, What::Vote, me, &vote).unwrap_or_else(Heard::from);
        if heard.is_yes() {
            let why = format!("{node} voted no: {why}");
            let abort = Decision::Plan(Plan::Abort);
            heard = follow.decide(board, abort, now, node.as_str(), &why);
        }
        self.heed(&heard);
        self.see_off()?;
        self.close()
    }

    /// Says to the fleet why this node does not take part yet, and until when. It may change its mind.
    pub fn say_not_yet(&mut self, why: &str, until: Option<jiff::Timestamp>) {
        let rollout = self.kept.part().map(|part| part.rollout);
        self.has.not_yet = Some(NotYet { rollout, why: why.to_owned(), until });
        self.beat_now();
    }

    /// What keeps this node from going on, as its own settings and its operators have it.
    pub(super) fn obstacle(&mut self) -> Option<NotYet> {
        let part = self.kept.part()?;
        let found = self.obstacle.as_ref().and_then(|look| look(&part.release))?;
        Some(NotYet { rollout: Some(part.rollout), ..found })
    }

    /// Adds to a reason what those have said who are missing.
    pub(super) fn with_their_words(&mut self, why: String, missing: &[crate::coord::NodeName]) -> String {
        const TOLD: usize = 3;
        let rollout = self.kept.part().map(|part| part.rollout);
        let mut why = why;
        for node in missing.iter().take(TOLD) {
            let said = alive::read(self.board.as_mut(), node).and_then(|said| said.not_yet);
            if let Some(said) = said.filter(|said| said.rollout.is_none() || said.rollout == rollout) {
                why = format!("{why}; {node}: {}", said.why);
            }
        }
        why
    }

    /// The node runs what the rollout wants already: it votes, holds the instant and reports like the others, and has nothing
    /// to switch. In a rolling rollout it takes a ticket in its turn, as all do, and gives the place free at once: nobody looks
    /// for the reports of others.
    pub fn go_along(&mut self, running: &Version, checks: Checks) -> Result<Along, Error> {
        self.follow()?;
        let runs = Some(running.clone());
        self.change_part(|part| part.running = runs)?;
        if let Some(Stage::Rolling(_)) = self.kept.part().map(|part| part.stage) {
            return self.go_along_rolling(checks);
        }
        match self.advance(checks)? {
            Next::Wait => Ok(Along::Wait(self.poll(), self.waits_for())),
            Next::Switch(at) if self.now() < at => {
                let left = Duration::from_millis(u64::try_from(at - self.now()).unwrap_or(0));
                Ok(Along::Wait(left.min(self.poll()), self.waits_for()))
            }
            Next::Switch(at) => {
                self.enter(Stage::Synchronous(Step::Switched { at }))?;
                let now = Some(self.clock.wall());
                self.change_part(|part| part.moments.switched = now)?;
                self.tell_along(What::Stopped, at)?;
                self.tell(crate::coord::rules::synchronous::Telling::Switched)?;
                Ok(Along::Wait(Duration::ZERO, self.waits_for()))
            }
            Next::GoBack(at) => {
                self.tell_along(What::Cleared, at)?;
                self.enter(Stage::Synchronous(Step::GoneBack))?;
                let said = self.said();
                self.close()?;
                Ok(Along::Ended(Some(said)))
            }
            Next::Leave => {
                self.enter(Stage::Synchronous(Step::Left))?;
                self.see_off()?;
                let said = self.said();
                self.close()?;
                Ok(Along::Ended(Some(said)))
            }
            Next::Final(stage) => {
                self.see_off()?;
                let said = self.said();
                self.close()?;
                Ok(Along::Ended((stage != Step::Kept).then_some(said)))
            }
        }
    }

    fn go_along_rolling(&mut self, checks: Checks) -> Result<Along, Error> {
        match self.advance_rolling()? {
            RollingNext::Wait => Ok(Along::Wait(self.pause_rolling(), self.place())),
            RollingNext::Switch => {
                let health = if checks == Checks::Failed { Health::Failed } else { Health::Good };
                self.enter(Stage::Rolling(Place::Done { health }))?;
                self.look_in_rolling()?;
                self.close()?;
                Ok(Along::Ended((health != Health::Good).then(|| "it is not healthy here".into())))
            }
            RollingNext::Off | RollingNext::GoBack => {
                self.close()?;
                Ok(Along::Ended((!self.was_kept()).then(|| self.end())))
            }
        }
    }

    /// With overlap `none` others wait until all have stopped the old release, and here nothing of it runs.
    fn tell_along(&mut self, what: What, at: crate::coord::rules::Ms) -> Result<(), Error> {
        let overlap = self.synchronous().map(|follow| follow.rollout.proposal.overlap);
        if overlap == Some(Overlap::None) {
            self.tell_step(what, at)?;
        }
        Ok(())
    }
}
