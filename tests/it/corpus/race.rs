//! Somebody who changes the tree while it is built.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::build::Tar;
use super::{Place, small_limits};

#[test]
fn a_directory_exchanged_for_a_link_during_unpacking_leads_nowhere() {
    // Entries alternate between two directories, so that each is opened anew for every entry.
    let tar = (0..1400).fold(Tar::new(), |tar, at| tar.file(format!("{}/d/{at}", ["a", "b"][at % 2]), "x"));
    let bytes = tar.end();
    let mut refused = 0;
    for round in 0..16 {
        let place = Place::new();
        let link = place.tree().parent().unwrap().parent().unwrap().join("link");
        symlink(place.outside(), &link).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    (0..round * 5000).for_each(|_| std::hint::spin_loop());
                    for name in ["a", "a/d"] {
                        let victim = place.tree().join(name);
                        // What is not there yet cannot be exchanged; that is no matter.
                        let flags = RenameFlags::RENAME_EXCHANGE;
                        let _ = renameat2(AT_FDCWD, &victim, AT_FDCWD, &link, flags);
                        // Sometimes quickly back again, sometimes not.
                        (0..round * 500).for_each(|_| std::hint::spin_loop());
                        let _ = renameat2(AT_FDCWD, &victim, AT_FDCWD, &link, flags);
                    }
                }
            });
            let built = place.unpack(&bytes, &small_limits());
            is_over.store(true, Ordering::Relaxed);
            refused += usize::from(built.is_err());
        });
        drop(fs::remove_file(&link));
        drop(fs::remove_dir_all(&link));
        place.check("race");
    }
    eprintln!("{refused} of 16 races ended the unpacking");
}
