//! The first error of several threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::Error;

/// The first error of any thread.
#[derive(Default)]
pub struct Failure {
    is_set: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Failure {
    /// Keeps an error, if it is the first.
    pub fn keep(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.is_set.store(true, Ordering::Release);
        }
    }

    /// Whether there was one: then the others may give up.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Has the others give up, though nobody failed here: the caller has the error.
    pub fn give_up(&self) {
        self.is_set.store(true, Ordering::Release);
    }

    /// The error, once all threads have ended.
    pub fn result(&self) -> Result<(), Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    pub fn into_result(self) -> Result<(), Error> {
        self.error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
