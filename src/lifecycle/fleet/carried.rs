//! Facts that were carried to a node that is cut off: believed as if its storage had shown them.

use std::collections::BTreeMap;

use super::own::{Carried, Kept, Part};
use super::rollout_of;
use crate::coord::board::{Board, ClockRead, Created, Done, Listed, Read};
use crate::coord::heard::Heard;
use crate::coord::rules::gate::Gate;
use crate::coord::synchronous::{Synchronous, What};
use crate::coord::voice::Voice;

/// What `facts` (name and file) show to this node of the rollout that it has a part in, besides what it knows; or why they
/// are not believed.
pub fn believe(
    kept: &Kept,
    part: &Part,
    facts: BTreeMap<String, String>,
    voice: Voice<'_>,
) -> Result<Carried, String> {
    let node = &kept.own.node;
    let rollout = rollout_of(part, &kept.pages()).ok_or("its proposal cannot be read")?.of_node(node);
    let place = rollout.place_of(node).ok_or("this node is no member of it")?;
    let mut follow = Synchronous::new(rollout, usize::MAX, voice);
    for gate in Gate::ALL {
        if let Some(text) = part.gates.get(&follow.rollout.gate_name(gate)) {
            follow.remember_gate(gate, text);
        }
    }
    let mut board = CarriedBoard(facts);
    for gate in Gate::ALL {
        let name = follow.rollout.gate(gate);
        let (known, carried) = (part.gates.get(&follow.rollout.gate_name(gate)), board.0.get(&name));
        if known.is_some() && carried.is_some() && known != carried {
            return Err(format!("its `{}` is not the one that this node has read", gate.name()));
        }
    }
    let heard = follow.read_gates(&mut board);
    // A gate is obeyed only by who knows that its own word stands there, or that it is waived: who was cut off before it could
    // see that sees it here.
    let told = follow.told_by(&mut board, place);
    let _ = follow.look_for_waiver(&mut board, place);
    match (heard, follow.unreadable, follow.view.contradiction) {
        (Heard::Away(why) | Heard::Bad(why), _, _) | (Heard::Yes, Some(why), _) => Err(why),
        (Heard::Yes, None, true) => Err(follow.remarks.join("; ")),
        (Heard::Yes, None, false) => {
            let rollout = &follow.rollout;
            let texts = follow.texts.into_iter().map(|(gate, text)| (rollout.gate_name(gate), text));
            let is_newer = |told: &(String, String)| match &part.told {
                None => true,
                Some(known) => known != told && told.0.ends_with(What::Report.name()),
            };
            let is_new = |(gate, _): &(String, String)| !part.gates.contains_key(gate);
            Ok(Carried {
                rollout: part.rollout,
                gates: texts.filter(is_new).collect(),
                told: told.filter(|told| is_newer(told)),
                waived: follow.view.members[place].waived && !part.waived,
            })
        }
    }
}

/// A board that shows what was carried, and takes nothing.
struct CarriedBoard(BTreeMap<String, String>);

const CARRIED: &str = "it was carried here";

impl Board for CarriedBoard {
    fn create(&mut self, _: &str, _: &str) -> Created {
        Created::Unknown(CARRIED.into())
    }

    fn read(&mut self, name: &str) -> Read {
        self.0.get(name).map_or(Read::Absent, |text| Read::Bytes(text.clone()))
    }

    fn list(&mut self, _: &str) -> Listed {
        Listed::Unreachable(CARRIED.into())
    }

    fn prepare(&mut self, _: &str) -> Done {
        Done::Unreachable(CARRIED.into())
    }

    fn beat(&mut self, _: &str, _: &str) -> Done {
        Done::Unreachable(CARRIED.into())
    }

    fn clock(&mut self, _: &str) -> ClockRead {
        ClockRead::Unknown
    }

    fn remove(&mut self, _: &str) -> Done {
        Done::Unreachable(CARRIED.into())
    }
}
