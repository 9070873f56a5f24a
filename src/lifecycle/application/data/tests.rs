use super::*;

#[test]
fn auto_keeps_only_what_the_old_release_surely_reads() {
    use DataPolicy::{Auto, Keep, Restore};
    for (policy, old_reads, new_writes, wanted) in [
        (Auto, &[3, 4][..], Some(4), Decision::Keep),
        (Auto, &[3][..], Some(4), Decision::Restore),
        (Auto, &[][..], Some(4), Decision::Restore),
        (Auto, &[3][..], None, Decision::Restore),
        (Keep, &[][..], Some(4), Decision::Keep),
        (Restore, &[4][..], Some(4), Decision::Restore),
    ] {
        assert_eq!(decide(policy, old_reads, new_writes), wanted, "{policy:?} {old_reads:?} {new_writes:?}");
    }
}

struct Lab {
    _directory: tempfile::TempDir,
    root: PathBuf,
    data: Data,
    entries: Vec<Entry>,
    release: crate::types::ReleaseId,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let disk = Disk::default();
        disk.make_directory(&root.join(".cutover"), 0o700).unwrap();
        disk.make_directory(&root.join("data"), 0o755).unwrap();
        disk.replace(&root.join("data/db"), b"old", 0o600).unwrap();
        let entry =
            |name: &str| Entry { path: root.join(name), on_rollback: DataPolicy::Auto, leave: Vec::new() };
        let entries = vec![entry("data"), entry("later")];
        let data = Data { disk, private: root.join(".cutover"), reserve: 0, stopped: Stopped::Nothing };
        let version = "2".parse().unwrap();
        let release = crate::types::ReleaseId { version, digest: crate::types::Digest::of(b"2") };
        Self { _directory: directory, root, data, entries, release }
    }

    /// The same, but the change with this number fails.
    fn failing(&self, stop_before: usize) -> Data {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let probe = move |_: disk::Change<'_>| {
            if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == stop_before {
                return Err(nix::errno::Errno::EIO.into());
            }
            Ok(())
        };
        Data { disk: Disk::with_probe(std::sync::Arc::new(probe)), ..self.data.clone() }
    }

    fn snapshot(&self, data: &Data) -> Result<Vec<crate::types::record::DataSnapshot>, Error> {
        data.ensure_snapshots("t1", None, jiff::Timestamp::UNIX_EPOCH, &self.entries, Writers::Stopped)
    }

    fn restore(&self, data: &Data, items: &[crate::types::record::DataSnapshot]) -> Result<(), Error> {
        let (newer, at) = (&self.release, jiff::Timestamp::UNIX_EPOCH);
        data.ensure_restored(Restore { items, transaction: "t1", newer, at }).map(drop)
    }

    /// What the new release does.
    fn migrate(&self) {
        self.data.disk.replace(&self.root.join("data/db"), b"new", 0o600).unwrap();
        self.data.disk.replace(&self.root.join("later"), b"made later", 0o600).unwrap();
    }

    fn db(&self) -> String {
        std::fs::read_to_string(self.root.join("data/db")).unwrap()
    }
}

#[test]
fn data_come_back_and_newer_ones_are_set_aside() {
    let lab = Lab::new();
    let items = lab.snapshot(&lab.data).unwrap();
    assert_eq!(items[1].method, "absent");
    lab.migrate();
    assert_eq!(lab.snapshot(&lab.data).unwrap(), items, "a snapshot was taken twice");
    lab.restore(&lab.data, &items).unwrap();
    lab.restore(&lab.data, &items).unwrap();
    assert_eq!(lab.db(), "old");
    assert!(!lab.root.join("later").exists());
    let aside = lab.data.aside().unwrap();
    let (set, bytes) = &aside[0];
    assert_eq!(std::fs::read_to_string(set.items[0].stored.join("db")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(&set.items[1].stored).unwrap(), "made later");
    assert!(*bytes > 0 && aside.len() == 1);
    assert!(lab.data.drop_aside("t1").unwrap());
    assert!(!lab.data.drop_aside("t1").unwrap());
    assert!(lab.data.aside().unwrap().is_empty() && lab.db() == "old");
}

#[test]
fn what_was_set_aside_on_a_file_system_that_is_away_is_not_forgotten() {
    let lab = Lab::new();
    for (number, parent) in ["not/there", "bare"].into_iter().enumerate() {
        lab.data.disk.make_directory(&lab.root.join("bare"), 0o755).unwrap();
        let (transaction, release) = (format!("t{number}"), lab.release.clone());
        let place = lab.root.join(parent);
        let stored = place.join(format!(".db.cutover-aside-{transaction}.0-db.copy"));
        let items = vec![AsideItem { path: place.join("db"), stored }];
        let set = AsideSet { transaction, release, at: jiff::Timestamp::UNIX_EPOCH, root: None, items };
        lab.data.write_index(Kind::Aside, &set.transaction, &set).unwrap();
        let dropped = lab.data.drop_aside(&set.transaction);
        assert!(matches!(dropped, Err(Error::Away { .. })), "{parent}: {dropped:?}");
        assert!(lab.data.aside().unwrap().contains(&(set, 0)), "{parent}");
    }
}

#[test]
fn a_snapshot_interrupted_anywhere_is_taken_whole() {
    for stop_before in 0.. {
        let lab = Lab::new();
        let finished = lab.snapshot(&lab.failing(stop_before)).is_ok();
        let items = lab.snapshot(&lab.data).unwrap();
        lab.migrate();
        lab.restore(&lab.data, &items).unwrap();
        assert_eq!(lab.db(), "old", "stopped before change {stop_before}");
        if finished {
            assert!(stop_before > 5, "only {stop_before} changes");
            break;
        }
    }
}

#[test]
fn a_restore_interrupted_anywhere_loses_nothing() {
    for stop_before in 0.. {
        let lab = Lab::new();
        let items = lab.snapshot(&lab.data).unwrap();
        lab.migrate();
        let finished = lab.restore(&lab.failing(stop_before), &items).is_ok();
        lab.restore(&lab.data, &items).unwrap();
        assert_eq!(lab.db(), "old", "stopped before change {stop_before}");
        let stored = &lab.data.aside().unwrap()[0].0.items[0].stored;
        let newer = std::fs::read_to_string(stored.join("db")).unwrap();
        assert_eq!(newer, "new", "stopped before change {stop_before}");
        if finished {
            break;
        }
    }
}

#[test]
fn snapshots_go_when_nobody_needs_them() {
    let lab = Lab::new();
    let items = lab.snapshot(&lab.data).unwrap();
    lab.data.prune_snapshots(&items[..1]).unwrap();
    assert_eq!(lab.data.snapshots().unwrap().len(), 1);
    lab.data.plan_snapshots("t2", None, jiff::Timestamp::UNIX_EPOCH, &lab.entries).unwrap();
    lab.data.prune_snapshots(&[]).unwrap();
    assert!(lab.data.snapshots().unwrap().is_empty());
    let left = std::fs::read_dir(lab.root.join(".cutover/snapshots")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn a_copy_that_does_not_fit_is_refused_before_it_is_begun() {
    let lab = Lab::new();
    let data = Data { reserve: u64::MAX, ..lab.data.clone() };
    let plan =
        |data: &Data, name: &str| data.plan_snapshots(name, None, jiff::Timestamp::UNIX_EPOCH, &lab.entries);
    if plan(&lab.data, "t0").unwrap()[0].method == "copy" {
        let error = plan(&data, "t1").unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(lab.snapshot(&data).is_err());
    }
}
