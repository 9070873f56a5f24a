//! What people say to an update that is in the middle: a request in a file, Ctrl-C, a ban.

use super::driver::{Driver, Error};
use crate::lifecycle::agreement::OwnChecks;
use crate::store::Request;
use crate::types::record::{Cause, Reason, Record};

impl Driver<'_> {
    /// Why somebody wants the old release back, if anybody does. How it is wanted goes into the record.
    pub(super) fn wants_back(&self, record: &mut Record) -> Result<Option<Reason>, Error> {
        let request = self.request(record)?;
        self.wants_back_by(record, request.as_ref())
    }

    /// What was asked of this update.
    fn request(&self, record: &Record) -> Result<Option<Request>, Error> {
        Ok(self.store.request()?.filter(|request| request.transaction == record.transaction))
    }

    fn wants_back_by(&self, record: &mut Record, request: Option<&Request>) -> Result<Option<Reason>, Error> {
        if self.is_interrupted() {
            return Ok(Some(Reason::new(Cause::Operator, "interrupted by the operator")));
        }
        if let Some(request) = request.filter(|request| !request.commit) {
            record.no_hold = request.no_hold;
            record.data_policy = request.data.or(record.data_policy);
            record.ended_by.clone_from(&request.by);
            return Ok(Some(Reason::new(Cause::Operator, request.reason.clone())));
        }
        let bad = self.store.trusted_state()?.bad;
        // A member of a fleet that has vouched for the release may not leave alone: it is asked as for any failure.
        let kind = if record.rollout.is_some() { Cause::Machine } else { Cause::Operator };
        Ok(bad.iter().find(|bad| record.is_banned_by(bad)).map(|bad| {
            record.no_hold = true;
            Reason::new(kind, format!("it was banned in its trial: {}", bad.reason))
        }))
    }

    /// Whether somebody has said how the trial ends: nobody waits for a slow check then.
    pub(super) fn is_told(&self, record: &Record) -> bool {
        let is_asked = || {
            let request = self.store.request().ok().flatten();
            request.is_some_and(|request| request.transaction == record.transaction)
        };
        let is_banned = || {
            let state = self.store.trusted_state();
            state.is_ok_and(|state| state.bad.iter().any(|bad| record.is_banned_by(bad)))
        };
        self.is_interrupted() || is_asked() || is_banned()
    }

    /// What an operator says goes before what the checks say.
    pub(super) fn hear_operator(&self, record: &mut Record, own: OwnChecks) -> Result<OwnChecks, Error> {
        // Read once: a wish to go back that comes between two reads would be missed by the first, and be a commit for the
        // second.
        let request = self.request(record)?;
        if let Some(reason) = self.wants_back_by(record, request.as_ref())? {
            return Ok(OwnChecks::Failed(reason));
        }
        Ok(match request.filter(|request| request.commit) {
            Some(request) => {
                record.ended_by = request.by;
                OwnChecks::Healthy
            }
            None if record.confirm && own == OwnChecks::Healthy => OwnChecks::Watching,
            None => own,
        })
    }
}
