//! What the node remembers, for change: `state.json`, with its own lock.
//!
//! ```text
//! let mut memory = store.memory()?;      state.lock is taken, state.json is read
//! memory.hold = None;                    judged and changed
//! memory.keep()?;                        written, and the lock is released
//! ```
//! No other way writes that file, so nobody writes what somebody else has overtaken meanwhile: a serial, a ban, a hold, a pin
//! and the way back are never lost to a race. The lock is held for moments: no hook, no source and no other lock is
//! waited for with it.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::{Error, Store, kept};
use crate::sys::lock::{self, Lock};
use crate::types::state::State;

/// How long the lock is waited for: others hold it for one write of a small file.
const LIMIT: Duration = Duration::from_secs(10);

/// What is remembered, as it is now and stays until this is dropped.
pub struct Memory<'a> {
    store: &'a Store,
    before: State,
    state: State,
    _lock: Lock,
}

impl Store {
    /// What is remembered, for change: nobody else changes it while this lives.
    ///
    /// # Errors
    /// When the file cannot be believed, or somebody does not let go of its lock.
    pub fn memory(&self) -> Result<Memory<'_>, Error> {
        let path = self.layout.state_lock();
        let Some(lock) = lock::wait_for(&path, LIMIT)? else {
            return Err(Error::Locked { path, limit: LIMIT });
        };
        let state = self.trusted_state()?;
        Ok(Memory { store: self, before: state.clone(), state, _lock: lock })
    }
}

impl Memory<'_> {
    /// Writes what has changed, if anything has, and says what is remembered now.
    pub fn keep(self) -> Result<State, Error> {
        if self.state != self.before {
            kept::save(&self.store.disk, &self.store.layout.state(), &self.state)?;
        }
        Ok(self.state)
    }
}

impl Deref for Memory<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Memory<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, Store};
    use crate::sys::disk::Disk;

    #[test]
    fn changes_of_many_at_once_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Layout::new(directory.path()), Disk::default()).unwrap();
        store.prepare().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..10 {
                        let mut memory = store.memory().unwrap();
                        memory.pins.push(format!("{writer}.{number}").parse().unwrap());
                        memory.keep().unwrap();
                    }
                });
            }
        });
        assert_eq!(store.trusted_state().unwrap().pins.len(), 40);
    }
}
