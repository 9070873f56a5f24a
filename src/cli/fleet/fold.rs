//! What a screen says of many members: those that are alike in one line, with how many they are and some of their names.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::page::CellLine;
use super::report::moment;
use crate::coord::NodeName;
use crate::coord::account::{Account, Entry};

/// From so many on, those that are alike share a line.
pub const FOLD_FROM: usize = 61;

/// So many lines there are at the most; where there would be more, fewer things tell members apart.
const LINES_MAX: usize = 30;

/// So many runs of names stand in a line.
const RUNS_MAX: usize = 3;

/// Where these places of so many are, as names: runs of neighbours by their first and last.
pub fn names(places: &[usize], name: impl Fn(usize) -> String) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for place in places {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *place => *last = *place,
            Some(_) | None => runs.push((*place, *place)),
        }
    }
    let mut left = places.len();
    let mut told = Vec::new();
    for (first, last) in runs.into_iter().take(RUNS_MAX) {
        left -= last - first + 1;
        told.push(match last - first {
            0 => name(first),
            1 => format!("{}, {}", name(first), name(last)),
            _ => format!("{} to {}", name(first), name(last)),
        });
    }
    let more = if left > 0 { format!(" and {left} more") } else { String::new() };
    told.join(", ") + &more
}

/// Groups of places that have the same key, the largest first: by the first of these ways to tell them apart that makes few
/// enough; of the last way what is beyond that is one group more, without a key.
fn groups<const N: usize>(
    count: usize,
    keys: &[&dyn Fn(usize) -> [String; N]],
) -> Vec<(Option<[String; N]>, Vec<usize>)> {
    let mut by_key = BTreeMap::<[String; N], Vec<usize>>::new();
    for key in keys {
        by_key.clear();
        for place in 0..count {
            by_key.entry(key(place)).or_default().push(place);
        }
        if by_key.len() <= LINES_MAX {
            break;
        }
    }
    let mut all: Vec<_> = by_key.into_iter().map(|(key, places)| (Some(key), places)).collect();
    all.sort_by_key(|(_, places)| std::cmp::Reverse(places.len()));
    if all.len() > LINES_MAX {
        let mut rest: Vec<usize> = all.drain(LINES_MAX - 1..).flat_map(|(_, places)| places).collect();
        rest.sort_unstable();
        all.push((None, rest));
    }
    all
}

/// The rows of a rollout with many members; nothing where each has a row of its own. `seen`: how many seconds ago each was
/// heard of.
pub fn rows(account: &Account, seen: Option<&[Option<i64>]>) -> Option<Vec<Vec<String>>> {
    let members = &account.members;
    if members.len() < FOLD_FROM {
        return None;
    }
    let running = |entry: &Entry| entry.running.as_ref().map(ToString::to_string).unwrap_or_default();
    let wave = |entry: &Entry| entry.wave.map(|wave| wave.to_string()).unwrap_or_default();
    let fine = |place: usize| {
        let entry = &members[place];
        [wave(entry), running(entry), entry.state.to_owned(), entry.note.clone()]
    };
    // Each may have a reason of its own.
    let coarse = |place: usize| {
        let entry = &members[place];
        let note = if entry.note.is_empty() { "" } else { "various: `--json` has each" };
        [String::new(), running(entry), entry.state.to_owned(), note.to_owned()]
    };
    let mut head =
        vec!["MEMBERS", "WAVE", "RUNS", "STATE", "SWITCHED", "HEALTHY", "AWAY", "SEEN", "NOTE", "WHO"];
    let has_waves = members.iter().any(|entry| entry.wave.is_some());
    head.retain(|name| (*name != "WAVE" || has_waves) && (*name != "SEEN" || seen.is_some()));
    let row = |(key, places): (Option<[String; 4]>, Vec<usize>)| {
        let [wave, runs, state, note] =
            key.unwrap_or_else(|| [String::new(), String::new(), "others".into(), String::new()]);
        let of = || places.iter().map(|place| &members[*place]);
        let away = of().filter_map(|entry| entry.gap_ms).max();
        let mut row = vec![places.len().to_string()];
        row.extend(has_waves.then_some(wave));
        row.extend([runs, state]);
        row.push(between(of().filter_map(|entry| entry.switched)));
        row.push(between(of().filter_map(|entry| entry.healthy)));
        row.push(away.map(|away| format!("up to {away} ms")).unwrap_or_default());
        row.extend(seen.map(|seen| last_seen(places.iter().map(|place| seen[*place]))));
        row.push(note);
        row.push(names(&places, |place| members[place].node.to_string()));
        row
    };
    let head = head.into_iter().map(ToOwned::to_owned).collect();
    Some(std::iter::once(head).chain(groups(members.len(), &[&fine, &coarse]).into_iter().map(row)).collect())
}

/// From the first to the last of these moments.
fn between(moments: impl Iterator<Item = Timestamp> + Clone) -> String {
    match (moments.clone().min(), moments.max()) {
        (Some(first), Some(last)) if first == last => moment(Some(first)),
        (first @ Some(_), last @ Some(_)) => format!("{} to {}", moment(first), moment(last)),
        _ => String::new(),
    }
}

/// How long ago these were heard of: the longest, and how many never were.
fn last_seen(seen: impl Iterator<Item = Option<i64>> + Clone) -> String {
    let never = seen.clone().filter(Option::is_none).count();
    match (seen.flatten().max(), never) {
        (Some(longest), 0) => format!("within {longest} s"),
        (Some(longest), never) => format!("within {longest} s, {never} never"),
        (None, _) => "never".into(),
    }
}

/// The lines of cells.
pub fn cells(cells: &[CellLine]) -> Vec<String> {
    if cells.len() < FOLD_FROM {
        return cells.iter().map(CellLine::line).collect();
    }
    let fine = |place: usize| {
        let cell = &cells[place];
        [cell.wave.to_string(), cell.state.to_owned(), cell.why.clone()]
    };
    let coarse = |place: usize| {
        let cell = &cells[place];
        let why = if cell.why.is_empty() { "" } else { "various: `--json` has each" };
        [cell.wave.to_string(), cell.state.to_owned(), why.to_owned()]
    };
    let line = |(key, places): (Option<[String; 3]>, Vec<usize>)| {
        let [wave, state, why] = key.unwrap_or_else(|| ["-".into(), "others".into(), String::new()]);
        let why = if why.is_empty() { why } else { format!(": {why}") };
        let who = names(&places, |place| cells[place].name.to_string());
        format!("  {} cells, wave {wave}  {state}{why}  {who}", places.len())
    };
    groups(cells.len(), &[&fine, &coarse]).into_iter().map(line).collect()
}

/// These lines, of very many the first.
pub fn lines(all: &[String]) -> Vec<String> {
    let mut some: Vec<String> = all.iter().take(LINES_MAX).cloned().collect();
    match all.len().saturating_sub(LINES_MAX) {
        0 => {}
        more => some.push(format!("and {more} more like these: `--json` has all")),
    }
    some
}

/// The rows of a list of members: of each its state, its groups and its cell.
pub fn members(all: &[(&NodeName, [String; 3])]) -> Vec<Vec<String>> {
    let head = |first: &str| [first, "STATE", "GROUPS", "CELL"].map(ToOwned::to_owned).to_vec();
    if all.len() < FOLD_FROM {
        let row = |(node, said): &(&NodeName, [String; 3])| {
            std::iter::once(node.to_string()).chain(said.iter().cloned()).collect()
        };
        return std::iter::once(head("NODE")).chain(all.iter().map(row)).collect();
    }
    let fine = |place: usize| all[place].1.clone();
    let coarse = |place: usize| {
        let [state, groups, cell] = &all[place].1;
        let some = |said: &String| if said.is_empty() { "" } else { "various" }.to_owned();
        [state.clone(), some(groups), some(cell)]
    };
    let row = |(key, places): (Option<[String; 3]>, Vec<usize>)| {
        let said = key.unwrap_or_else(|| ["others".into(), String::new(), String::new()]);
        let who = names(&places, |place| all[place].0.to_string());
        std::iter::once(places.len().to_string()).chain(said).chain([who]).collect()
    };
    let mut head = head("NODES");
    head.push("WHO".into());
    std::iter::once(head).chain(groups(all.len(), &[&fine, &coarse]).into_iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_named_by_the_first_and_the_last() {
        let named = |places: &[usize]| names(places, |place| format!("n{place}"));
        assert_eq!(named(&[]), "");
        assert_eq!(named(&[3]), "n3");
        assert_eq!(named(&[3, 4]), "n3, n4");
        assert_eq!(named(&[0, 1, 2, 4, 7, 8, 9]), "n0 to n2, n4, n7 to n9");
        assert_eq!(named(&[0, 2, 4, 6, 8, 9]), "n0, n2, n4 and 3 more");
    }

    #[test]
    fn there_are_never_more_lines_than_a_screen_has() {
        let fine = |place: usize| [place.to_string()];
        let coarse = |place: usize| [(place % 40).to_string()];
        let all = groups(1000, &[&fine, &coarse]);
        assert_eq!(all.len(), LINES_MAX);
        assert_eq!(all.iter().map(|(_, places)| places.len()).sum::<usize>(), 1000);
        assert!(all.last().unwrap().0.is_none());
    }
}
