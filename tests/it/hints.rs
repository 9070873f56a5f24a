//! What an error advises is about what was typed, and not about something else.

use std::io::{Error as IoError, ErrorKind};

use cutover::cli::failure::{Error, failure};
use cutover::config::Problem;
use cutover::store::{Damage, Error as StoreError};
use cutover::sys::disk::Error as DiskError;
use cutover::sys::owned::Error as OwnedError;

use crate::refusals::Desk;

#[test]
fn a_place_that_is_not_there_is_named_and_nothing_else_is_blamed() {
    let desk = Desk::new();
    let node: &[&str] = &["--config", "node.toml"];
    let cases: [(&[&str], i32, &str); 4] = [
        (&["copy", "source", "stick"], 2, "there is no directory `stick` to copy to"),
        (&["publish", "/nonexistent", "1.0", "--key", "team"], 2, "there is no directory `/nonexistent`"),
        (&[node, &["adopt", "--undo"]].concat(), 1, "nothing was adopted here"),
        (&[node, &["log", "-n", "0"]].concat(), 0, "none of the 1 entries was asked for"),
    ];
    for (words, code, what) in cases {
        let (found, said) = desk.run(words);
        assert!(found == code && said.contains(what), "{words:?}: {found}: {said}");
        for misleading in
            ["can be reached", "says its version itself", "at that disk", "the disk that holds it"]
        {
            assert!(!said.contains(misleading), "{words:?}: {said}");
        }
    }
}

#[test]
fn who_may_not_read_the_configuration_is_told_so() {
    let denied =
        DiskError::new("open", "/etc/cutover/shop.toml".as_ref(), IoError::from(ErrorKind::PermissionDenied));
    let told = failure(&Error::Config(Problem::Owned(OwnedError::Disk(denied))));
    assert!(told.code == 2 && told.hint.unwrap().contains("as root"));
}

#[test]
fn what_a_newer_cutover_wrote_is_not_to_be_thrown_away() {
    let hint_of = |why| {
        let path = "/srv/shop/.cutover/state.json".into();
        failure(&Error::from(StoreError::Damaged { path, why })).hint.unwrap()
    };
    let newer = hint_of(Damage::Newer("unknown field `soon`, expected one of `hold`".into()));
    assert!(newer.contains("install the newer cutover") && !newer.contains("move"), "{newer}");
    assert!(hint_of(Damage::Spoilt("its checksum does not fit".into())).contains("move"));
}
