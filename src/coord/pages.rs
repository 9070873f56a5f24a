//! Lists of members that do not fit into one fact: in pages.
//!
//! ```text
//! members/000007      {"kind":"members","list":7,"members":[],"pages":["sha256:…",…]}    so does a proposal name them
//! members/p.<hex>     {"kind":"page","members":[…]}          its name is the digest of its line
//! ```
//! Pages are made before what names them, and whoever vouches for that vouches for them: a page is what its name says, or
//! nothing. So a copy that somebody keeps is as good as the page itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::board::{Board, Read};
use super::facts::{Fact, Listed, MEMBERS_MAX, Page, Proposal, names, seal};
use super::look::{Look, put_text, seal_summed};
use super::operate::{Error, refused};
use super::rolling::WAVES_MAX;
use super::settings::Mode;
use super::turns::named;
use crate::types::Digest;

/// The most pages that a list may have.
pub const PAGES_MAX: usize = 256;

/// What brings a page back.
const HELP: &str = "`cutover fleet repair` on a member that has read it puts it back";

/// What a page says of its members has at most so many bytes.
const PAGE_BYTES_MAX: usize = 128 << 10;

/// Cuts a list into pages: before members whose hash says so, one in 1024, so that a list with one member more has the same
/// pages but for a few; and where a page is full.
fn cut(mut entries: Vec<Listed>) -> Result<Vec<Page>, Error> {
    entries.sort_by(|one, other| one.node.cmp(&other.node));
    let mut pages: Vec<Page> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let length = serde_json::to_string(&entry).map_or(0, |text| text.len() + 1);
        if length > PAGE_BYTES_MAX {
            return refused(format!("the groups of `{}` are too long for a list of members", entry.node));
        }
        match pages.last_mut() {
            Some(page) if bytes + length <= PAGE_BYTES_MAX && !begins_a_page(&entry) => {
                page.members.push(entry);
                bytes += length;
            }
            Some(_) | None => {
                pages.push(Page { members: vec![entry] });
                bytes = length;
            }
        }
    }
    let count: usize = pages.iter().map(|page| page.members.len()).sum();
    if pages.len() > PAGES_MAX || count > MEMBERS_MAX {
        return refused(format!(
            "{count} members are too many: a list has at most {MEMBERS_MAX}, and {PAGES_MAX} pages of {} KiB",
            PAGE_BYTES_MAX >> 10
        ));
    }
    Ok(pages)
}

fn begins_a_page(entry: &Listed) -> bool {
    let hex = Digest::of(entry.node.as_str().as_bytes()).hex();
    u16::from_str_radix(&hex[..4], 16).is_ok_and(|hash| hash % 1024 == 0)
}

/// Makes the pages of a list, those that are not there; their digests.
pub fn put(board: &mut dyn Board, entries: Vec<Listed>) -> Result<Vec<Digest>, Error> {
    let mut digests = Vec::new();
    for page in cut(entries)? {
        let fact = Fact::Page(page);
        let digest = Digest::of(fact.line().as_bytes());
        let name = names::page(digest);
        let text = seal_summed(&name, &fact);
        match put_text(board, &name, &text) {
            Look::Found(found) if found.text == text => digests.push(digest),
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            Look::Found(_) | Look::Absent | Look::Bad(_) => {
                return refused(format!(
                    "something else stands in `{name}`: remove that file, and try again"
                ));
            }
        }
    }
    Ok(digests)
}

/// What the page of this name says, in its first line; nothing where the text is not that page.
pub fn line_of<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    let line = seal::open(name, text.as_bytes()).ok()?.line;
    (names::page(Digest::of(line.as_bytes())) == name).then_some(line)
}

/// The members that the page of this name has.
fn members_of(name: &str, text: &str) -> Option<Vec<Listed>> {
    match Fact::parse(line_of(name, text)?) {
        Ok(Fact::Page(page)) => Some(page.members),
        Ok(_) | Err(_) => None,
    }
}

/// The members of these pages, each of which is read by its name.
pub fn members(pages: &[Digest], read: &mut dyn FnMut(&str) -> Read) -> Look<Vec<Listed>> {
    let mut members = Vec::new();
    if pages.len() > PAGES_MAX {
        return Look::Bad(format!("it has more than {PAGES_MAX} pages"));
    }
    for digest in pages {
        match page(*digest, read) {
            Look::Found(more) => members.extend(more.iter().cloned()),
            Look::Absent => return Look::Absent,
            Look::Bad(why) => return Look::Bad(why),
            Look::Unreachable(why) => return Look::Unreachable(why),
        }
        if members.len() > MEMBERS_MAX {
            return Look::Bad(format!("it has more than {MEMBERS_MAX} members"));
        }
    }
    if !members.is_sorted_by(|one, other| one.node < other.node) {
        return Look::Bad("its pages are not in the order of names".into());
    }
    Look::Found(members)
}

/// The members of one page, which this process reads once: lists and proposals name mostly the same ones.
fn page(digest: Digest, read: &mut dyn FnMut(&str) -> Read) -> Look<Arc<[Listed]>> {
    static KNOWN: Mutex<BTreeMap<Digest, Arc<[Listed]>>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(members) = known().get(&digest) {
        return Look::Found(members.clone());
    }
    let name = names::page(digest);
    let text = match read(&name) {
        Read::Bytes(text) => text,
        Read::Bad(why) => return Look::Bad(format!("its page `{name}` is not valid: {why}")),
        Read::Absent => return Look::Unreachable(format!("its page `{name}` is not there: {HELP}")),
        Read::Unreachable(why) => return Look::Unreachable(why),
    };
    let Some(members) = members_of(&name, &text) else {
        return Look::Bad(format!("its page `{name}` is damaged: {HELP}"));
    };
    let members: Arc<[Listed]> = members.into();
    let mut known = known();
    // Those of two lists at the most.
    if known.len() >= 2 * PAGES_MAX {
        known.clear();
    }
    known.insert(digest, members.clone());
    Look::Found(members)
}

/// A proposal that names pages, and no member itself; `waves` as the settings have them.
pub fn in_pages(proposal: &Proposal, pages: Vec<Digest>, waves: &[super::settings::WaveSetting]) -> Proposal {
    let mut paged = proposal.clone();
    (paged.pages, paged.signed) = (pages, !paged.keys.is_empty());
    paged.members.clear();
    paged.instances.clear();
    paged.keys.clear();
    paged.cells.clear();
    if let Some(terms) = &mut paged.rolling {
        terms.waves = waves.to_vec();
    }
    paged
}

/// Takes up what the pages of a proposal say: from now on it is as if it named its members itself.
pub fn fill(proposal: &mut Proposal, entries: Vec<Listed>) -> Result<(), &'static str> {
    let names_some = !proposal.members.is_empty()
        || !proposal.instances.is_empty()
        || !proposal.keys.is_empty()
        || !proposal.cells.is_empty();
    if names_some {
        return Err("it has pages, and names members itself");
    }
    if proposal.mode == Mode::Cells {
        let of = entries.iter().filter_map(|entry| Some((entry.node.clone(), entry.cell.clone()?)));
        proposal.cells = of.collect();
    }
    if let Some(terms) = &mut proposal.rolling {
        if terms.waves.len() > WAVES_MAX {
            return Err("it has too many waves");
        }
        terms.waves = named(&terms.waves, proposal.mode, &entries, &proposal.cells);
    }
    for entry in entries {
        match entry.key {
            Some(key) if proposal.signed => {
                proposal.keys.insert(entry.node.clone(), key);
            }
            None if proposal.signed => return Err("it does not name the keys of all its members"),
            Some(_) | None => {}
        }
        if !entry.instance.is_empty() {
            proposal.instances.insert(entry.node.clone(), entry.instance);
        }
        proposal.members.push(entry.node);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn listed(number: usize) -> Listed {
        Listed {
            node: format!("edge-{number:05}").parse().unwrap(),
            instance: "i".repeat(32),
            groups: Vec::new(),
            cell: None,
            key: None,
        }
    }

    fn texts(entries: Vec<Listed>) -> (Vec<Digest>, BTreeMap<String, String>) {
        let one = |page: Page| {
            let fact = Fact::Page(page);
            let digest = Digest::of(fact.line().as_bytes());
            (digest, (names::page(digest), seal_summed(&names::page(digest), &fact)))
        };
        cut(entries).unwrap().into_iter().map(one).unzip()
    }

    fn read(pages: &[Digest], board: &BTreeMap<String, String>) -> Look<Vec<Listed>> {
        members(pages, &mut |name| board.get(name).cloned().map_or(Read::Absent, Read::Bytes))
    }

    #[test]
    fn a_list_is_read_as_it_was_cut_and_one_more_member_is_one_page_or_two() {
        let all: Vec<Listed> = (0..10_000).map(listed).collect();
        let (pages, board) = texts(all.clone());
        assert!(board.values().all(|text| text.len() < 2 * PAGE_BYTES_MAX) && pages.len() < 100);
        assert_eq!(read(&pages, &board), Look::Found(all.clone()));
        let more =
            all.into_iter().chain([listed(99_999), Listed { groups: vec!["g".into()], ..listed(10_500) }]);
        let (again, _) = texts(more.collect());
        let fresh = again.iter().filter(|page| !pages.contains(page)).count();
        assert!(fresh <= 4, "{fresh} of {} pages are new", again.len());
    }

    #[test]
    fn what_is_not_the_page_that_is_named_says_nothing() {
        // Pages that no other test here has read: a process remembers what it has read.
        let listed = |number| Listed { node: format!("core-{number:05}").parse().unwrap(), ..listed(number) };
        let (pages, board) = texts((0..3000).map(listed).collect());
        let name = names::page(pages[0]);
        let mut torn = board.clone();
        torn.insert(name.clone(), board[&name].replacen("core-00001", "core-00002", 1));
        assert!(matches!(read(&pages, &torn), Look::Bad(why) if why.contains(&name)));
        // Whole in itself, and another page.
        let other = seal_summed(&name, &Fact::Page(Page { members: vec![listed(7)] }));
        torn.insert(name.clone(), other);
        assert!(matches!(read(&pages, &torn), Look::Bad(_)));
        torn.remove(&name);
        assert!(matches!(read(&pages, &torn), Look::Unreachable(why) if why.contains(&name)));
        let back: Vec<Digest> = pages.iter().rev().copied().collect();
        assert!(matches!(read(&back, &board), Look::Bad(_)), "out of order");
        let twice = [pages[0], pages[0]];
        assert!(matches!(read(&twice, &board), Look::Bad(_)), "a page twice");
        assert!(matches!(read(&vec![pages[0]; PAGES_MAX + 1], &board), Look::Bad(_)));
        assert!(cut((0..=MEMBERS_MAX).map(listed).collect()).is_err());
    }
}
