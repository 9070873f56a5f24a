//! Lists of members: who is in the fleet, and whose name was freed.

use std::collections::BTreeMap;

use super::alive;
use super::board::{Board, Listed};
use super::facts::{self, Fact, Fleet, Listed as Entry, Members, names};
use super::look::{Found, Look, Trust, look_signed, looked, put_text};
use super::name::NodeName;
use super::operate::{Error, NOBODY, Operator, refused, some_of};
use super::pages;
use super::turns::Said;
use crate::types::Digest;

/// How often each node's name was freed for another machine.
pub fn replaced(
    board: &mut dyn Board,
    fleet: &str,
    trust: Trust<'_>,
) -> Result<BTreeMap<NodeName, u32>, Error> {
    let names = match board.list(names::MEMBERS) {
        Listed::Names(names) => names,
        Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
    };
    let mut times = BTreeMap::new();
    for (node, number) in names.iter().filter_map(|name| names::replaced_of(name)) {
        match look_signed(board, &names::replace(&node, number), trust) {
            Look::Found(Found { fact: Fact::Replace(said), .. })
                if said.node == node && said.times == number && said.fleet == fleet =>
            {
                let known = times.entry(node).or_insert(0);
                *known = number.max(*known);
            }
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            Look::Found(_) | Look::Absent | Look::Bad(_) => {}
        }
    }
    Ok(times)
}

/// The list of members of this number, whatever else there is.
pub fn list(board: &mut dyn Board, number: u32, fleet: &str, trust: Trust<'_>) -> Look<Members> {
    let mut members = match look_signed(board, &names::members(number), trust) {
        Look::Found(Found { fact: Fact::Members(members), .. })
            if members.list == number && members.fleet == fleet =>
        {
            members
        }
        Look::Found(_) => return Look::Bad("it is another one".into()),
        Look::Absent => return Look::Absent,
        Look::Bad(why) => return Look::Bad(why),
        Look::Unreachable(why) => return Look::Unreachable(why),
    };
    if let Some(named) = members.pages.as_ref().filter(|pages| !pages.is_empty()) {
        members.members = match pages::members(named, &mut |name| board.read(name)) {
            Look::Found(members) => members,
            // It counts, and nobody goes back to an older one because a page of it is gone.
            Look::Bad(why) | Look::Unreachable(why) => {
                return Look::Unreachable(format!("list of members {number}: {why}"));
            }
            Look::Absent => return Look::Absent,
        };
    }
    Look::Found(members)
}

/// The member list that counts: the valid one with the highest number. One that was written over a list with pages by a
/// cutover that cannot read those does not count.
pub fn members(board: &mut dyn Board, fleet: &str, trust: Trust<'_>) -> Result<Option<Members>, Error> {
    let lists = match board.list(names::MEMBERS) {
        Listed::Names(lists) => lists,
        Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
    };
    let has_pages = lists.iter().any(|name| names::is_page(name));
    let mut newest = None;
    for number in lists.iter().rev().filter_map(|name| name.parse::<u32>().ok()) {
        match list(board, number, fleet, trust) {
            Look::Found(members) if members.pages.as_ref().is_some_and(|pages| !pages.is_empty()) => {
                return Ok(Some(members));
            }
            Look::Found(members) => {
                let is_sure = !has_pages || members.pages.is_some();
                newest.get_or_insert(members);
                if is_sure {
                    break;
                }
            }
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            Look::Absent | Look::Bad(_) => {}
        }
    }
    Ok(newest)
}

/// The newest list of members of this fleet that does not count, above `newest`, and why: nobody knows who is in it.
pub fn newest_bad(
    board: &mut dyn Board,
    newest: u32,
    fleet: &str,
    trust: Trust<'_>,
) -> Option<(u32, String)> {
    let Listed::Names(lists) = board.list(names::MEMBERS) else { return None };
    let numbers = lists.iter().rev().filter_map(|name| name.parse::<u32>().ok());
    numbers.take_while(|number| *number > newest).find_map(|number| match list(board, number, fleet, trust) {
        Look::Bad(why) => Some((number, why)),
        Look::Found(_) | Look::Absent | Look::Unreachable(_) => None,
    })
}

/// What stands under a name.
#[derive(Clone, Debug)]
pub enum Joined {
    As(facts::Id),
    /// Nothing: nobody has it, or it was freed.
    No,
    /// Nothing that can be read, and why: no machine of that name takes part.
    Torn(String),
}

impl Joined {
    pub fn id(self) -> Option<facts::Id> {
        match self {
            Self::As(id) => Some(id),
            Self::No | Self::Torn(_) => None,
        }
    }
}

impl Operator<'_> {
    /// The entries of all nodes that ever joined.
    pub fn entries(&mut self, fleet: &Fleet) -> Result<BTreeMap<NodeName, Joined>, Error> {
        let nodes = match self.board.list(names::NODES) {
            Listed::Names(nodes) => nodes,
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        };
        self.entries_of(fleet, nodes.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The entries of these nodes.
    pub fn entries_of(
        &mut self,
        fleet: &Fleet,
        nodes: Vec<NodeName>,
    ) -> Result<BTreeMap<NodeName, Joined>, Error> {
        let replaced = replaced(self.board, &fleet.id, self.trust)?;
        let times = |node: &NodeName| replaced.get(node).copied().unwrap_or(0);
        let ids: Vec<String> = nodes.iter().map(|node| names::id(node, times(node))).collect();
        let (mut entries, mut away) = (BTreeMap::new(), None);
        self.board.read_each(&ids, &mut |place, read| {
            let node = &nodes[place];
            let joined = match looked(&ids[place], read) {
                Look::Found(Found { fact: Fact::Id(id), .. }) if id.node == *node => Joined::As(id),
                Look::Found(_) => Joined::Torn("it is the entry of another one".into()),
                Look::Bad(why) => Joined::Torn(why),
                Look::Absent => Joined::No,
                Look::Unreachable(why) => return away = Some(why),
            };
            entries.insert(node.clone(), joined);
        });
        away.map_or(Ok(entries), |why| Err(Error::Unreachable(why)))
    }

    /// The entries of the nodes that have joined.
    pub fn joined(&mut self, fleet: &Fleet) -> Result<Vec<facts::Id>, Error> {
        Ok(self.entries(fleet)?.into_values().filter_map(Joined::id).collect())
    }

    /// The member list that counts.
    pub fn members(&mut self, fleet: &Fleet) -> Result<Option<Members>, Error> {
        members(self.board, &fleet.id, self.trust)
    }

    /// Writes the next member list. `seen`: the highest number that this machine knows; where the storage went back in time, the
    /// list that had it was another one.
    pub fn write_members(&mut self, fleet: &Fleet, members: Vec<Entry>, seen: u32) -> Result<Members, Error> {
        let lists = match self.board.list(names::MEMBERS) {
            Listed::Names(lists) => lists,
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        };
        let list = lists.iter().filter_map(|name| name.parse::<u32>().ok()).max();
        let list = list.unwrap_or(0).max(seen).saturating_add(1);
        // Beside pages each list says that its author could read them.
        let pages = lists.iter().any(|name| names::is_page(name)).then(Vec::new);
        let wanted = Members { fleet: fleet.id.clone(), list, members, pages, by: self.by.clone() };
        let name = names::members(list);
        let text = match self.seal_short(&name, &Fact::Members(wanted.clone()))? {
            Some(text) => text,
            None => {
                let pages = self.put_pages(wanted.members.clone())?;
                let paged = Members { members: Vec::new(), pages: Some(pages), ..wanted.clone() };
                self.seal(&name, &Fact::Members(paged))?
            }
        };
        match put_text(self.board, &name, &text) {
            Look::Found(found) if found.text == text => Ok(wanted),
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
            _ => refused(format!("member list {list} was just written by somebody else")),
        }
    }

    /// Makes the pages of a list, where all of its members can read them.
    pub(super) fn put_pages(&mut self, entries: Vec<Entry>) -> Result<Vec<Digest>, Error> {
        let nodes: Vec<NodeName> = entries.iter().map(|entry| entry.node.clone()).collect();
        let said = Said::read(self.board, &nodes);
        let old: Vec<&NodeName> = nodes.iter().filter(|node| !said.knows(node, alive::PAGES)).collect();
        if !old.is_empty() {
            return refused(format!(
                "the list of members does not fit into one file, and the cutover of these members cannot read one in pages: \
                 {}; bring cutover itself up to date there first",
                some_of(&old)
            ));
        }
        pages::put(self.board, entries)
    }

    /// The member list that counts; the first one is of all who have joined.
    pub(super) fn members_or_all(&mut self, fleet: &Fleet) -> Result<Members, Error> {
        if let Some(list) = self.members(fleet)? {
            return Ok(list);
        }
        let joined: Vec<Entry> = self.joined(fleet)?.into_iter().map(entry_of).collect();
        if joined.is_empty() {
            return refused(NOBODY);
        }
        self.write_members(fleet, joined, 0)
    }
}

/// The entry of a list for a node that has joined.
pub fn entry_of(id: facts::Id) -> Entry {
    Entry { node: id.node, instance: id.instance, groups: id.groups, cell: None, key: id.key }
}
