//! Updates whose release is rehearsed first.

use std::time::Duration;

use super::{Deaf, FakeApplication, ManualClock, node_of, phase, sealed, settings, store, update_in};
use crate::health::{Answer, Observation};
use crate::lifecycle::rehearsal::{Cost, Network, Rehearsal};
use crate::lifecycle::update::driver::Ended;
use crate::lifecycle::update::outcome::end_of;
use crate::types::record::{Cause, Phase, Record};

/// What is seen of a rehearsal.
#[derive(Clone)]
pub(super) struct FakeRehearsal {
    answer: Answer,
    objections: Vec<String>,
    doubt: Option<String>,
}

impl Rehearsal for FakeRehearsal {
    fn observe(&mut self, _: Duration) -> Vec<Observation> {
        let (name, detail) = ("well".into(), "as rehearsed".into());
        vec![Observation { name, ok: self.answer, detail, took: Duration::ZERO }]
    }
    fn objections(&self) -> Vec<String> {
        self.objections.clone()
    }
    fn doubt(&self) -> Option<String> {
        self.doubt.clone()
    }
    fn last_words(&self) -> Vec<String> {
        vec!["no such table".into()]
    }
    fn cost(&self) -> Cost {
        Cost { copied_bytes: 7, memory_bytes: None }
    }
}

/// Updates from 1 to 2 with a rehearsal that goes like this; also says which releases are banned then.
fn rehearsed(rehearsal: FakeRehearsal) -> (Record, Vec<String>, Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    let mut settings = settings();
    settings.rehearsal.network = Network::Private;
    let clock = ManualClock::jumping(None);
    let (ended, _, done) = update_in(&store, &clock, &[], &[], Some(rehearsal), &settings);
    let Ended::Finished(record) = ended else { panic!("{ended:?}") };
    let bad = store.trusted_state().unwrap().bad;
    (*record, done, bad.iter().map(|bad| bad.release.version.to_string()).collect())
}

fn well() -> FakeRehearsal {
    FakeRehearsal { answer: Answer::Healthy, objections: Vec::new(), doubt: None }
}

#[test]
fn a_release_is_rehearsed_before_anything_stops() {
    let (record, done, bad) = rehearsed(well());
    assert_eq!(record.phase, Phase::Committed);
    assert!(bad.is_empty());
    let seen = record.rehearsed.unwrap();
    assert!(seen.took_ms >= 30_000 && seen.copied_bytes == 7, "{seen:?}");
    let wanted = ["arm", "rehearse 2", "end rehearsal", "pre-switch", "stop", "start 2"];
    assert_eq!(done[..6], wanted);
}

#[test]
fn a_rehearsal_that_fails_touches_nothing_and_bans_the_release() {
    let port = "it listens on TCP port 1".to_owned();
    for (rehearsal, word) in [
        (FakeRehearsal { answer: Answer::Sick, ..well() }, "check `well` fails: as rehearsed"),
        (FakeRehearsal { answer: Answer::NotYet, ..well() }, "check `well` does not pass"),
        (FakeRehearsal { objections: vec![port.clone()], ..well() }, port.as_str()),
    ] {
        let (record, done, bad) = rehearsed(rehearsal);
        let Phase::Cancelled { reason } = &record.phase else { panic!("{record:?}") };
        assert_eq!(reason.kind, Cause::Rehearsal);
        assert!(reason.text.contains(word) && reason.text.contains("no such table"), "{}", reason.text);
        assert_eq!(end_of(&record).unwrap().exit_code, 12);
        assert_eq!(bad, ["2"]);
        assert_eq!(done[..4], ["arm", "rehearse 2", "end rehearsal", "failed"]);
        assert!(
            !done.iter().any(|done| ["stop", "pre-switch", "start 2"].contains(&done.as_str())),
            "{done:?}"
        );
    }
}

#[test]
fn a_rehearsal_on_a_doubtful_copy_bans_nothing() {
    let doubt = Some("`/data` were copied while they changed".to_owned());
    let (record, _, bad) = rehearsed(FakeRehearsal { answer: Answer::Sick, doubt, ..well() });
    assert!(
        matches!(&record.phase, Phase::Cancelled { reason } if reason.kind == Cause::NotNow),
        "{record:?}"
    );
    assert!(bad.is_empty());
}

#[test]
fn an_interrupted_rehearsal_is_cleared_away_and_called_off() {
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    let clock = ManualClock::jumping(None);
    let application = FakeApplication { rehearsal: Some(well()), ..FakeApplication::new(&store) };
    let settings = settings();
    let node = node_of(&application, &clock, &settings, &Deaf);
    let lock = node.lock().unwrap();
    let record = node.rehearsal_record(&sealed("2").release);
    store.keep_journal(&record).unwrap();
    let ended = node.recover(lock).unwrap().unwrap();
    assert!(
        matches!(phase(&ended), Phase::Cancelled { reason } if reason.kind == Cause::NotNow),
        "{ended:?}"
    );
    assert_eq!(application.done(), ["end rehearsal", "disarm"]);
    assert!(store.trusted_state().unwrap().bad.is_empty());
}
