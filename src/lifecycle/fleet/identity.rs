//! Who this node is: its name on storage, the machine behind it, and whether another one goes by the same.

use std::time::Duration;

use super::super::agreement::Error;
use super::keys::without_key;
use super::{Member, Taken, rollout_of};
use crate::coord::NodeName;
use crate::coord::alive::{self, Alive};
use crate::coord::board::{Done, Read};
use crate::coord::facts::{self, Fact, names};
use crate::coord::lists::replaced;
use crate::coord::look::{self, Found, Look, look};
use crate::coord::settings::Facts;
use crate::types::record::{Phase, Record};

/// So many places where it ran are remembered.
const PLACES_MAX: usize = 16;
/// How often the heartbeat is renewed by a node that may hold a place, or will soon,
const BEAT: Duration = Duration::from_secs(15);
/// and by one that only waits: before it takes a place, it looks as often as the others.
const BEAT_AT_REST: Duration = Duration::from_secs(300);
/// A heartbeat that is not older comes from a machine that runs.
pub(super) const FRESH: Duration = Duration::from_secs(90);
/// Within this time a machine at work sees the heartbeat of another one: it looks before each of its own.
const NOTICED: Duration = Duration::from_secs(30);

/// Whoever has ended an update waits no longer than this for storage, to show what runs.
const AT_THE_END: Duration = Duration::from_millis(400);

/// Where a node runs: outside of its own root, so that a copy of the root does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The machine's id; empty: unknown.
    pub machine: String,
    /// What names this machine, this boot and this root together; empty: unknown.
    pub place: String,
}

impl Member<'_> {
    /// Looks for its key, and compares fleet, name, machine and place with what storage says. `None`: this node is who it is
    /// taken for.
    pub(super) fn identify(&mut self) -> Result<Option<Taken>, Error> {
        let rollout = self.kept.part().and_then(|part| rollout_of(part, &self.kept.pages()));
        let is_signed = rollout.is_some_and(|rollout| rollout.is_signed());
        // A key may go at any time, and no storage is needed to see it.
        if let Some(why) = self.without_key(is_signed) {
            return Ok(Some(Taken::Stranger(why)));
        }
        if let Some(place) = self.unaccused.clone() {
            let who = self.accuse(&place);
            return Ok(Some(self.is_not(who)));
        }
        if !self.is_identified
            && let Some(taken) = self.find_out_who()?
        {
            return Ok(Some(taken));
        }
        if let Some(why) = &self.stranger {
            return Ok(Some(Taken::Stranger(why.clone())));
        }
        if !self.may_be_copy() {
            return Ok(None);
        }
        self.wait_for_silence()
    }

    /// Waits until whoever runs where this node ran before would have noticed its heartbeat: which takes storage that answers, and
    /// holds the heartbeat, all the time. `None`: nobody has.
    fn wait_for_silence(&mut self) -> Result<Option<Taken>, Error> {
        self.twin_read = None;
        match self.look_where() {
            Ok(None) => {}
            // It has renewed its heartbeat, and has yet to see this one.
            Ok(Some(_)) => {
                self.break_silence()?;
                self.beat_now();
            }
            Err(who) => {
                if let Who::Away(_) = who {
                    self.break_silence()?;
                }
                return Ok(Some(self.is_not(who)));
            }
        }
        if self.is_shown {
            self.beat();
        } else {
            self.beat_now();
        }
        if !self.is_shown {
            self.break_silence()?;
            let why = "this node's heartbeat cannot be written, and so nobody can notice it";
            return Ok(Some(Taken::Unreachable(why.into())));
        }
        if self.is_silence_broken {
            self.note_arrival()?;
            self.is_silence_broken = false;
        }
        if !self.may_be_copy() {
            return Ok(None);
        }
        Ok(Some(Taken::Nothing(Some(
            "this node was just at work from another place: it takes part when that one stays silent".into(),
        ))))
    }

    /// Nobody could have noticed this node until now: the time begins anew. Written down, for the next look may be that of another
    /// process.
    fn break_silence(&mut self) -> Result<(), Error> {
        if !self.is_silence_broken {
            self.note_arrival()?;
        }
        self.is_silence_broken = true;
        Ok(())
    }

    fn note_arrival(&mut self) -> Result<(), Error> {
        let now = u64::try_from(self.clock.boot().as_millis()).ok();
        self.kept.change(|own| own.arrived_ms = now)
    }

    /// Why nobody would believe this node, where it signs what it says.
    pub(super) fn without_key(&self, is_signed: bool) -> Option<String> {
        let signs = is_signed || self.settings.facts == Facts::Signed;
        self.signer.filter(|_| signs).and_then(|signer| without_key(&self.kept.own, signer))
    }

    pub(super) fn is_stranger(&mut self) -> Result<bool, Error> {
        let taken = self.identify()?;
        Ok(self.unaccused.is_some() || matches!(taken, Some(Taken::Stranger(_))))
    }

    fn find_out_who(&mut self) -> Result<Option<Taken>, Error> {
        let moved = match self.look_who().and_then(|()| self.look_where()) {
            Ok(moved) => moved,
            Err(who) => return Ok(Some(self.is_not(who))),
        };
        self.stranger = None;
        self.is_identified = true;
        let place = self.here.place.clone();
        if !place.is_empty() && (moved.is_some() || self.kept.own.places.last() != Some(&place)) {
            let arrived_ms = moved.and_then(|_| u64::try_from(self.clock.boot().as_millis()).ok());
            self.kept.change(|own| {
                own.places.retain(|known| *known != place);
                own.places.push(place.clone());
                let surplus = own.places.len().saturating_sub(PLACES_MAX);
                own.places.drain(..surplus);
                own.arrived_ms = arrived_ms;
            })?;
        }
        if let Some(from) = moved {
            // Whoever runs there notices this heartbeat, and says so, before this one takes part.
            self.beat_now();
            self.is_identified = false;
            return Ok(Some(Taken::Nothing(Some(format!(
                "this node was at work {} s ago from another place: it takes part when that one stays silent",
                from.as_secs()
            )))));
        }
        Ok(None)
    }

    /// Whether this node has a part in a rollout, in which a copy would hold the same ticket or instant, and whoever runs where
    /// it ran just before has not had time yet to notice it.
    pub(super) fn may_be_copy(&self) -> bool {
        let arrived = self.kept.own.arrived_ms.map(Duration::from_millis);
        self.kept.part().is_some()
            && arrived
                .is_some_and(|at| self.is_silence_broken || self.clock.boot().saturating_sub(at) < NOTICED)
    }

    fn look_who(&mut self) -> Result<(), Who> {
        let (node, trust) = (self.node(), self.trust());
        let board = self.board.as_mut();
        let fleet = match look(board, names::FLEET) {
            Look::Found(Found { fact: Fact::Fleet(fleet), .. }) => fleet,
            Look::Found(_) => return Err(Who::Away("`FLEET` does not describe a fleet".into())),
            Look::Absent => return Err(Who::Away("there is no fleet in the directory".into())),
            Look::Bad(why) => return Err(Who::Away(format!("`FLEET` is not valid: {why}"))),
            Look::Unreachable(why) => return Err(Who::Away(why)),
        };
        if fleet.id != self.kept.own.fleet {
            return Err(Who::Away(format!(
                "the directory is of another fleet `{}` than the one this node has joined; is the right one mounted?",
                fleet.fleet
            )));
        }
        if fleet.fleet != self.settings.name {
            let (is, said) = (&fleet.fleet, &self.settings.name);
            return Err(Who::Stranger(format!(
                "the fleet is `{is}`, and `fleet.name` says `{said}`: set it right"
            )));
        }
        let called = &self.settings.node;
        if !called.is_empty() && *called != node.as_str() {
            return Err(Who::Stranger(format!(
                "this node has joined as `{node}`, and `fleet.node` says `{called}`: set it back; or, for another name, remove \
                 `.cutover/fleet.json`, and `cutover fleet join`"
            )));
        }
        let times = replaced(board, &fleet.id, trust).map_err(|error| Who::Away(error.to_string()))?;
        match look(board, &names::id(&node, times.get(&node).copied().unwrap_or(0))) {
            Look::Found(Found { fact: Fact::Id(id), .. }) if id.instance == self.kept.own.instance => {
                let here = &self.here.machine;
                if here.is_empty() || id.machine.is_empty() || *here == id.machine {
                    return Ok(());
                }
                Err(Who::Stranger(format!(
                    "`{node}` has joined from another machine, of which this one is a copy: {}",
                    free(&node)
                )))
            }
            Look::Found(_) => {
                Err(Who::Stranger(format!("the name `{node}` is in use by another machine: {}", free(&node))))
            }
            Look::Absent => Err(Who::Stranger(format!(
                "the name `{node}` was freed by an operator, or storage has lost it: `cutover fleet join` takes it again"
            ))),
            Look::Bad(why) => {
                Err(Who::Stranger(format!("the entry of `{node}` is not valid: {why}: {}", free(&node))))
            }
            Look::Unreachable(why) => Err(Who::Away(why)),
        }
    }

    /// Whether it ran somewhere else until just now: for how long not.
    fn look_where(&mut self) -> Result<Option<Duration>, Who> {
        let here = self.here.place.clone();
        if here.is_empty() {
            return Ok(None);
        }
        let node = self.node();
        let now = self.clock.boot();
        // Whoever accuses this node says it in the heartbeat, too, which the node's own next one may overwrite. So the file is read
        // less often: within the time in which a machine at work sees another one.
        let is_read = self.twin_read.is_some_and(|last| now.saturating_sub(last) < NOTICED);
        let accused = if is_read { Read::Absent } else { self.board.read(&names::twin(&node, &here)) };
        match accused {
            Read::Absent if is_read => {}
            Read::Absent => self.twin_read = Some(now),
            Read::Bytes(_) | Read::Bad(_) => return Err(Who::Stranger(two(&node))),
            Read::Unreachable(why) => return Err(Who::Away(why)),
        }
        self.looked = Some(now);
        let Some(said) = alive::read(self.board.as_mut(), &node) else {
            // A node that ran elsewhere has said so, and where that cannot be read somebody may be at work there.
            let was_elsewhere = self.kept.own.places.last().is_some_and(|last| *last != here);
            return Ok(was_elsewhere.then_some(Duration::ZERO));
        };
        if said.twin.as_deref() == Some(here.as_str()) {
            return Err(Who::Stranger(two(&node)));
        }
        if said.place.is_empty() || said.place == here {
            return Ok(None);
        }
        if !self.kept.own.places.contains(&said.place) {
            return Err(self.accuse(&said.place));
        }
        // With a part in a rollout the age says nothing: where the storage was away, nobody could renew the heartbeat.
        let ago = self.clock.wall().duration_since(said.at).unsigned_abs();
        Ok((ago < FRESH || self.kept.part().is_some()).then_some(ago))
    }

    /// Shows on storage that this node is there. Decides nothing.
    pub(super) fn beat(&mut self) {
        self.beat_each(BEAT);
    }

    /// The same, where nothing rests on it.
    pub(super) fn beat_at_rest(&mut self) {
        self.beat_each(BEAT_AT_REST);
    }

    fn beat_each(&mut self, pause: Duration) {
        let now = self.clock.boot();
        if self.cut_off.is_some() || self.beaten.is_some_and(|last| now.saturating_sub(last) < pause) {
            return;
        }
        if self.looked.is_none_or(|last| now.saturating_sub(last) >= BEAT) {
            self.look_for_twin();
        }
        // Whoever accuses another machine does so in the heartbeat, too.
        if self.stranger.is_none() && self.unaccused.is_none() {
            self.beat_now();
        }
    }

    /// What the heartbeat says of this node's releases follows the journal: it is written for as long as this process lives.
    pub(super) fn note_what_runs(&mut self, record: &Record) {
        let (from, to) = (record.from.clone(), record.to.clone());
        match record.phase {
            Phase::Trial { .. } => self.has.running = Some(to.version),
            Phase::Committed => {
                self.has.running = Some(to.version);
                // The release before this one comes first.
                self.has.releases.retain(|release| Some(release) != from.as_ref());
                self.has.releases.splice(0..0, from.clone());
                self.has.previous = from;
            }
            Phase::RolledBack { .. } => self.has.running = from.map(|from| from.version),
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::RollingBack { .. }
            | Phase::Cancelled { .. } => {}
        }
    }

    /// An update has ended: others need not wait for the next run to see what runs here. Storage is asked for a moment only, for
    /// somebody may wait at a terminal.
    pub(super) fn show_what_runs(&mut self, record: &Record) {
        let has_moved = !matches!(record.phase, Phase::Cancelled { .. });
        if has_moved && self.cut_off.is_none() {
            self.board.hurry(AT_THE_END);
            if self.is_seen_alone() {
                self.beat_now();
            }
        }
    }

    /// Shows on storage that this node is there, and where: after joining.
    pub fn show(&mut self) -> Result<(), Error> {
        let place = self.here.place.clone();
        if !place.is_empty() {
            self.kept.change(|own| own.places = vec![place])?;
        }
        self.beat_now();
        Ok(())
    }

    pub(super) fn beat_now(&mut self) {
        self.beaten = Some(self.clock.boot());
        let (instance, place) = (self.instance(), self.here.place.clone());
        let cell = self.settings.cell.clone();
        let alive = Alive { at: self.clock.wall(), instance, place, cell, ..self.has.clone() };
        self.is_shown = self.board.beat(&names::alive(&self.kept.own.node), &alive.text()) == Done::Done;
    }

    /// Before each heartbeat: whether somebody else has written it since.
    fn look_for_twin(&mut self) {
        if self.here.place.is_empty() || self.stranger.is_some() || !self.is_identified {
            return;
        }
        let who = match self.unaccused.clone() {
            Some(place) => Some(self.accuse(&place)),
            None => self.look_where().err(),
        };
        if let Some(Who::Stranger(why)) = who {
            self.stranger = Some(why);
        }
    }

    /// Whether this node has just looked for another machine under its name, and seen none: before each promise, for nobody could
    /// be seen while the storage was away.
    pub(super) fn is_seen_alone(&mut self) -> bool {
        let now = self.clock.boot();
        let has_looked = |member: &Self| member.looked.is_some_and(|last| now.saturating_sub(last) < NOTICED);
        if self.here.place.is_empty() {
            return true;
        }
        if !self.is_identified {
            return matches!(self.identify(), Ok(None));
        }
        if !has_looked(self) {
            self.look_for_twin();
        }
        has_looked(self) && self.stranger.is_none() && self.unaccused.is_none()
    }

    /// Says on storage that another machine is at work under this name. Until that stands there this node takes no part, and says
    /// it again: else nobody would stop the other one.
    fn accuse(&mut self, place: &str) -> Who {
        let (node, seen_from) = (self.node(), self.here.place.clone());
        let fact = Fact::Twin(facts::Twin { node: node.clone(), place: place.to_owned(), seen_from });
        let told = look::put(self.board.as_mut(), &names::twin(&node, place), &fact);
        self.has.twin = Some(place.to_owned());
        self.beat_now();
        self.has.twin = None;
        let is_told = matches!(told, Look::Found(_) | Look::Bad(_));
        self.unaccused = (!is_told).then(|| place.to_owned());
        match is_told {
            true => Who::Stranger(two(&node)),
            false => Who::Away(format!(
                "{}; this cannot be written to the storage now, and is tried again",
                two(&node)
            )),
        }
    }

    /// Remembers that this is another machine than the node that it was taken for.
    fn is_not(&mut self, who: Who) -> Taken {
        match who {
            Who::Away(why) => Taken::Unreachable(why),
            Who::Stranger(why) => {
                self.stranger = Some(why.clone());
                Taken::Stranger(why)
            }
        }
    }
}

/// Why this is not the node that it was taken for.
enum Who {
    Away(String),
    Stranger(String),
}

fn two(node: &NodeName) -> String {
    format!(
        "two machines are at work as `{node}`, and one is a copy: switch that one off; then {}",
        free(node)
    )
}

/// The commands that give a name to another machine, or to the same one anew.
pub fn free(node: &NodeName) -> String {
    format!("`cutover fleet replace {node}` frees the name, and `cutover fleet join` takes it")
}
