//! The board: each name is one key, written by one transaction that asks first whether it is there.
//!
//! ```text
//! <prefix>//FLEET                          what `FLEET` holds
//! <prefix>//rollouts                       MARK: the directory is there
//! <prefix>/rollouts//000017                what `rollouts/000017` holds
//! <prefix>/nodes//edge-01                  MARK
//! <prefix>/nodes/edge-01//000017.vote
//! ```
//! Two slashes before the last part: a listing of one directory is then one range of keys, without those below it.
//! The marks tell an empty board from a key space that was never one, or was lost: there, nothing is *absent*.

use cutover::coord::board::{
    Board, ClockRead, Created, Done, Listed, NAMES_MAX, Read, list_named, read_named,
};
use cutover::coord::facts::{FACT_BYTES_MAX, names};
use serde_json::{Value, json};

use crate::clock;
use crate::gateway::{Blob, Gateway};

/// What the key of a directory holds. No fact is so short.
const MARK: &[u8] = b"directory";

/// So many keys are asked for at once.
const PAGE: usize = 10_000;

/// A board in etcd. Blocks until etcd answers, or its time is up.
pub struct EtcdBoard {
    gateway: Gateway,
}

impl EtcdBoard {
    /// The board behind this way.
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway }
    }

    fn key(&self, name: &str) -> Blob {
        Blob(key(self.gateway.prefix(), name).into_bytes())
    }

    /// The key of the directory that `name` stands in; none in the board's own.
    fn directory_of(&self, name: &str) -> Option<Blob> {
        name.rsplit_once('/').map(|(directory, _)| self.key(directory))
    }

    fn try_read(&mut self, name: &str) -> Result<Read, String> {
        // A node that never joined has no directory; without the directories of the board it is another one.
        let top = name.split_once('/').map(|(top, _)| self.key(top));
        let key = self.key(name);
        let mut reads = vec![get(&key)];
        reads.extend(top.as_ref().map(get));
        let outcome = self.gateway.transact(&[], &reads, &[])?;
        match outcome.found(0).first() {
            Some(entry) => Ok(read_of(&entry.value.0)),
            None if top.is_some() && outcome.found(1).is_empty() => Err(self.no_board()),
            None => Ok(Read::Absent),
        }
    }

    fn try_create(&mut self, name: &str, text: &str) -> Result<Created, String> {
        let key = self.key(name);
        let directory = self.directory_of(name);
        let mut conditions = vec![is_absent(&key)];
        conditions.extend(directory.as_ref().map(is_there));
        let success = [put(&key, text.as_bytes())];
        let outcome = self.gateway.transact(&conditions, &success, &[get(&key)])?;
        if outcome.succeeded {
            return Ok(Created::Mine);
        }
        Ok(match outcome.found(0).first() {
            Some(entry) if entry.value.0 == text.as_bytes() => Created::Mine,
            Some(entry) => match read_of(&entry.value.0) {
                Read::Bytes(there) => Created::Theirs(there),
                Read::Bad(why) => Created::Theirs(why),
                Read::Absent | Read::Unreachable(_) => Created::Theirs(String::new()),
            },
            None => Created::Unknown(self.no_board()),
        })
    }

    fn try_list(&mut self, name: &str) -> Result<Listed, String> {
        let directory = (!name.is_empty()).then(|| self.key(name));
        let first =
            key(self.gateway.prefix(), &if name.is_empty() { String::new() } else { format!("{name}/") });
        let mut end = first.clone().into_bytes();
        // `0` follows `/`.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let is_shown = |name: &&str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        let last = |entry: &crate::gateway::Entry| {
            let key = std::str::from_utf8(&entry.key.0).ok()?;
            key.strip_prefix(first.as_str()).filter(is_shown).map(ToOwned::to_owned)
        };
        let mut names: Vec<String> = Vec::new();
        let mut next = first.clone().into_bytes();
        // Page by page. What is made meanwhile may be missed, as by any look; what was there before is not.
        loop {
            let range = json!({"request_range": {
                "key": Blob(next), "range_end": Blob(end.clone()), "keys_only": true, "limit": PAGE.to_string(),
            }});
            let mut reads = vec![range];
            reads.extend(directory.as_ref().map(get));
            let outcome = self.gateway.transact(&[], &reads, &[])?;
            if directory.is_some() && outcome.found(1).is_empty() {
                return Err(format!("there is no directory `{name}` below `{}`", self.gateway.prefix()));
            }
            let found = outcome.found(0);
            names.extend(found.iter().filter_map(last));
            if names.len() > NAMES_MAX {
                return Err(format!("it holds more than {NAMES_MAX} names"));
            }
            match found.last().filter(|_| found.len() == PAGE) {
                Some(entry) => next = [&entry.key.0[..], &[0]].concat(),
                None => break,
            }
        }
        names.sort();
        Ok(Listed::Names(names))
    }

    fn try_beat(&mut self, name: &str, text: &str) -> Result<(), String> {
        let key = self.key(name);
        let conditions: Vec<Value> = self.directory_of(name).iter().map(is_there).collect();
        let outcome = self.gateway.transact(&conditions, &[put(&key, text.as_bytes())], &[])?;
        if outcome.succeeded { Ok(()) } else { Err(self.no_board()) }
    }

    fn no_board(&self) -> String {
        format!("there is no fleet's board below `{}` in this etcd", self.gateway.prefix())
    }
}

impl Board for EtcdBoard {
    fn create(&mut self, name: &str, text: &str) -> Created {
        if !names::is_name(name) || text.len() > FACT_BYTES_MAX {
            return Created::Unknown("it is not a name or not a text for a board".into());
        }
        // After an error the transaction may have been done all the same: what the key holds now tells.
        self.try_create(name, text).unwrap_or_else(|error| match self.read(name) {
            Read::Bytes(there) if there == text => Created::Mine,
            Read::Bytes(there) => Created::Theirs(there),
            Read::Bad(why) => Created::Theirs(why),
            Read::Absent | Read::Unreachable(_) => Created::Unknown(error),
        })
    }

    fn read(&mut self, name: &str) -> Read {
        read_named(name, || self.try_read(name))
    }

    fn list(&mut self, name: &str) -> Listed {
        list_named(name, || self.try_list(name))
    }

    fn prepare(&mut self, name: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        let key = self.key(name);
        match self.gateway.transact(&[is_absent(&key)], &[put(&key, MARK)], &[]) {
            Ok(_) => Done::Done,
            Err(why) => Done::Unreachable(why),
        }
    }

    fn beat(&mut self, name: &str, text: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        self.try_beat(name, text).map_or_else(Done::Unreachable, |()| Done::Done)
    }

    fn clock(&mut self, _: &str) -> ClockRead {
        clock::compare(|| self.gateway.date())
    }

    fn remove(&mut self, name: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        let delete = json!({"request_delete_range": {"key": self.key(name)}});
        match self.gateway.transact(&[], &[delete], &[]) {
            Ok(_) => Done::Done,
            Err(why) => Done::Unreachable(why),
        }
    }
}

fn key(prefix: &str, name: &str) -> String {
    match name.rsplit_once('/') {
        Some((directory, last)) => format!("{prefix}/{directory}//{last}"),
        None => format!("{prefix}//{name}"),
    }
}

fn read_of(value: &[u8]) -> Read {
    if value == MARK {
        return Read::Bad("it is a directory".into());
    }
    if value.len() > FACT_BYTES_MAX {
        return Read::Bad(format!("it is longer than {FACT_BYTES_MAX} bytes"));
    }
    match std::str::from_utf8(value) {
        Ok(text) => Read::Bytes(text.to_owned()),
        Err(_) => Read::Bad("it is not UTF-8".into()),
    }
}

fn is_absent(key: &Blob) -> Value {
    json!({"key": key, "target": "VERSION", "result": "EQUAL", "version": "0"})
}

fn is_there(key: &Blob) -> Value {
    json!({"key": key, "target": "VERSION", "result": "GREATER", "version": "0"})
}

fn get(key: &Blob) -> Value {
    json!({"request_range": {"key": key}})
}

fn put(key: &Blob, value: &[u8]) -> Value {
    json!({"request_put": {"key": key, "value": Blob(value.to_vec())}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_range_of_keys() {
        let vote = key("/shop", "nodes/edge/000001.vote");
        assert_eq!(vote, "/shop/nodes/edge//000001.vote");
        assert_eq!(key("/shop", "FLEET"), "/shop//FLEET");
        let edge = key("/shop", "nodes/edge");
        let nodes = key("/shop", "nodes/");
        assert!(edge.starts_with(&nodes) && !vote.starts_with(&nodes), "{edge} {nodes}");
    }

    #[test]
    fn what_is_no_fact_is_bad() {
        assert_eq!(read_of(b"text"), Read::Bytes("text".into()));
        for value in [MARK, &[0xff], &vec![b'a'; FACT_BYTES_MAX + 1][..]] {
            assert!(matches!(read_of(value), Read::Bad(_)), "{} bytes", value.len());
        }
    }
}
