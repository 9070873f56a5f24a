//! What the models of nodes and of cells that take turns share: the board before anything has happened, and decisions on it.

use cutover::coord::rules::rolling::{Decision, Member, View};

/// A member that has said nothing.
pub fn silent(wave: u32) -> Member {
    Member { wave, waived: false, refused: false, report: None, returned: None, is_at_work: false }
}

/// The board of so many who take turns, with so many rows of tickets; with waves, the first of them goes ahead.
pub fn untouched(members: usize, has_waves: bool, rows: usize) -> View {
    let member = |number| silent(u32::from(has_waves && number > 0));
    View {
        me: 0,
        members: (0..members).map(member).collect(),
        rows: vec![Vec::new(); rows],
        row: 0,
        is_whole: true,
        wave: 0,
        halt: false,
        end: None,
        contradiction: false,
    }
}

/// Each decision is made once; the first one stands.
pub fn decide(board: &mut View, decision: Decision) {
    match decision {
        Decision::Halt => board.halt = true,
        Decision::Wave(wave) => board.wave = board.wave.max(wave),
        Decision::End(end) => drop(board.end.get_or_insert(end)),
    }
}
