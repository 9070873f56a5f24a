//! How long nobody got a good answer in this update: measured, recorded, told. Nothing is decided by it.

use std::time::Duration;

use super::driver::Driver;
use crate::health::{Gaps, Pulse, Trial};
use crate::types::record::{Phase, Record, Unanswered};

/// Who measures: checks that are asked many times a second where there are such, else those of the trial.
pub(super) enum Measuring {
    /// A thread of its own.
    Pulse(Pulse),
    /// The looks of the trial.
    Looks(Gaps),
}

impl Measuring {
    fn gaps(&self) -> Gaps {
        match self {
            Self::Pulse(pulse) => pulse.gaps(),
            Self::Looks(gaps) => gaps.clone(),
        }
    }
}

impl Driver<'_> {
    /// Begins to measure, before anything stops. A first installation takes nothing away from anybody.
    pub(super) fn begin_measuring(&mut self, record: &Record) {
        if self.measuring.is_some() || record.from.is_none() {
            return;
        }
        let now = self.clock.boot();
        let gaps = match &record.unanswered {
            Some(known) => {
                let ago =
                    |since| self.clock.wall().duration_since(since).try_into().unwrap_or(Duration::ZERO);
                let since = known.since.map(|since| now.saturating_sub(ago(since)));
                Gaps::resumed(Duration::from_millis(known.total_ms), since)
            }
            None => Gaps::default(),
        };
        self.measuring = Some(match self.application.pulse(&record.ignored_checks, gaps.clone()) {
            Some(pulse) => Measuring::Pulse(pulse),
            None => {
                let mut gaps = gaps;
                if record.unanswered.is_none() {
                    // The old release was found well, and is stopped from now on.
                    gaps.good(now, Duration::MAX);
                    gaps.bad();
                }
                Measuring::Looks(gaps)
            }
        });
    }

    /// The old release is stopped now. Where only the trial looks, nobody has asked since it was found well, which may be long ago
    /// where others were waited for: it has served until now.
    pub(super) fn note_stop(&mut self, record: &mut Record) {
        if let Some(Measuring::Looks(gaps)) = &mut self.measuring {
            *gaps = Gaps::default();
            gaps.good(self.clock.boot(), Duration::MAX);
            gaps.bad();
            record.unanswered = Some(Unanswered { total_ms: 0, since: Some(self.clock.wall()) });
        }
    }

    /// A look of the trial, of either release.
    pub(super) fn note_answers(&mut self, trial: &Trial) {
        let now = self.clock.boot();
        if let Some(Measuring::Looks(gaps)) = &mut self.measuring {
            if trial.is_answering() {
                gaps.good(now, Duration::MAX);
            } else {
                gaps.bad();
            }
        }
    }

    /// Puts what was measured so far into the record. Where services are about to stop, whoever goes on after a crash counts
    /// from the last good answer; else from there only if nobody was answered since.
    pub(super) fn keep_unanswered(&self, record: &mut Record) {
        let is_stopping = matches!(record.phase, Phase::Switching | Phase::RollingBack { .. });
        if let Some(Measuring::Pulse(pulse)) = &self.measuring {
            pulse.watch_closely(is_stopping);
        }
        let Some(gaps) = self.measuring.as_ref().map(Measuring::gaps) else {
            if is_stopping && record.from.is_some() && record.unanswered.is_none() {
                // The old release was found well just now.
                record.unanswered = Some(Unanswered { total_ms: 0, since: Some(self.clock.wall()) });
            }
            return;
        };
        let now = self.clock.boot();
        let Some(total) = gaps.total(now) else { return };
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let open = gaps.away_since().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let since = if is_stopping { gaps.last_good() } else { gaps.away_since() };
        let ago = since.and_then(|since| jiff::SignedDuration::try_from(now.saturating_sub(since)).ok());
        let since = ago.and_then(|ago| self.clock.wall().checked_sub(ago).ok());
        // While it goes on, what is open is told by its begin; at the end there is only a sum.
        let is_over = super::outcome::end_of(record).is_some();
        let closed = if is_over { total } else { total.saturating_sub(open) };
        record.unanswered =
            Some(Unanswered { total_ms: milliseconds(closed), since: since.filter(|_| !is_over) });
    }
}
