//! Facts that were carried to a node that is cut off: believed as if its storage had shown them.

use std::collections::BTreeMap;

use super::own::Part;
use super::rollout_of;
use crate::coord::board::{Board, ClockRead, Created, Done, Listed, Read};
use crate::coord::synchronous::{GATES, Heard, Synchronous};
use crate::coord::voice::Voice;

/// The gates that `facts` (name and file) show to the member of this part, besides those that it knows; or why they
/// are not believed.
pub fn believe(
    part: &Part,
    facts: BTreeMap<String, String>,
    voice: Voice<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let rollout = rollout_of(part).ok_or("its proposal cannot be read")?;
    let mut follow = Synchronous::new(rollout, usize::MAX, voice);
    for gate in GATES {
        if let Some(text) = part.gates.get(gate) {
            follow.remember_gate(gate, text);
        }
    }
    let mut board = CarriedBoard(facts);
    for gate in GATES {
        let name = follow.rollout.decisions().gate(gate);
        let (known, carried) = (part.gates.get(gate), board.0.get(&name));
        if known.is_some() && carried.is_some() && known != carried {
            return Err(format!("its `{gate}` is not the one that this node has read"));
        }
    }
    let heard = follow.read_gates(&mut board);
    match (heard, follow.unreadable, follow.view.contradiction) {
        (Heard::Away(why) | Heard::Bad(why), _, _) | (Heard::Yes, Some(why), _) => Err(why),
        (Heard::Yes, None, true) => Err(follow.remarks.join("; ")),
        (Heard::Yes, None, false) => {
            Ok(follow.texts.into_iter().map(|(gate, text)| (gate.to_owned(), text)).collect())
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
