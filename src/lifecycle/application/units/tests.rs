use super::*;

struct Place {
    _directory: tempfile::TempDir,
    disk: Disk,
    tree: PathBuf,
    links: Links,
}

fn place(files: &[(&str, &str)]) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let (root, etc) = (directory.path().join("shop"), directory.path().join("system"));
    let tree = root.join("releases/1");
    for path in [&root, &root.join("releases"), &tree, &tree.join("systemd"), &etc] {
        disk.make_directory(path, 0o755).unwrap();
    }
    for (name, text) in files {
        let path = tree.join("systemd").join(name);
        disk.make_directory(path.parent().unwrap(), 0o755).unwrap();
        disk.replace(&path, text.as_bytes(), 0o644).unwrap();
    }
    let declared = vec!["app.service".to_owned()];
    let links = Links { directory: etc, root, stop_timeout: Duration::from_secs(1), declared };
    Place { _directory: directory, disk, tree, links }
}

#[test]
fn only_links_through_the_pointer_are_ours() {
    let Place { _directory, disk, tree, links } = place(&[
        ("a.service", "[Unit]\n"),
        ("b.socket", "[Unit]\n"),
        ("app.service.d/m.conf", "[Service]\n"),
    ]);
    links.check(&tree).unwrap();
    links.link(&disk, "a.service").unwrap();
    links.link(&disk, "app.service.d/m.conf").unwrap();
    disk.replace(&links.directory.join("b.socket"), b"[Unit]\n", 0o644).unwrap();
    assert!(matches!(links.check(&tree), Err(Error::Taken { .. })));
    assert!(matches!(links.link(&disk, "b.socket"), Err(Error::Taken { .. })));
    assert_eq!(links.ours().unwrap().into_iter().collect::<Vec<_>>(), ["a.service"]);
    assert_eq!(
        links.linked().unwrap().into_iter().collect::<Vec<_>>(),
        ["a.service", "app.service.d/m.conf"]
    );
}

#[test]
fn what_links_lead_to_through_the_pointer_is_known() {
    let Place { _directory, disk, tree, links } =
        place(&[("a.service", "[Unit]\n"), ("a.service.d/m.conf", "[Unit]\n")]);
    let (pointer, new) = (links.root.join("current"), links.directory.join(".new"));
    disk.point(&pointer, &tree, &links.root.join("new")).unwrap();
    disk.make_directory(&links.directory.join("x.service.d"), 0o755).unwrap();
    let targets = [
        ("linked.service", pointer.join("systemd/a.service")),
        ("gone.service", pointer.join("etc/gone.service")),
        ("x.service.d/m.conf", tree.join("systemd/a.service.d/m.conf")),
        ("masked.service", "/dev/null".into()),
    ];
    for (name, target) in &targets {
        disk.point(&links.directory.join(name), target, &new).unwrap();
    }
    let found: BTreeSet<_> = links.through_pointer(&tree).unwrap().into_iter().collect();
    let wanted = ["etc/gone.service", "systemd/a.service", "systemd/a.service.d/m.conf"];
    assert_eq!(found, wanted.map(PathBuf::from).into());
}

#[test]
fn what_could_not_be_stopped_again_is_not_linked() {
    let is_refused = |name: &str, text: &str| {
        let Place { _directory, tree, links, .. } = place(&[(name, text)]);
        matches!(links.check(&tree), Err(Error::OnlyWithOthers(file)) if file == name)
    };
    assert!(is_refused("a.service", "[Unit]\nRefuseManualStop = yes\n"));
    assert!(is_refused("app.service.d/m.conf", "[Unit]\nRefuseManualStart=true\n"));
    assert!(is_refused("a.service", "[Unit]\nRefuseManualStart=1\n[Install]\nWantedBy=a.target\n"));
    // For its timer to start.
    assert!(!is_refused("a.service", "[Unit]\nRefuseManualStart=yes\n"));
    assert!(!is_refused("a.service", "[Unit]\nRefuseManualStop=yes\nRefuseManualStop=no\n"));
}

#[test]
fn what_an_admin_masked_is_in_nobodys_way_and_not_ours() {
    let Place { _directory, disk, tree, links } = place(&[("a.service", "[Unit]\n")]);
    let path = links.directory.join("a.service");
    disk.point(&path, Path::new("/dev/null"), &links.directory.join(".new")).unwrap();
    links.check(&tree).unwrap();
    assert!(links.linked().unwrap().is_empty());
}

#[test]
fn enabling_names_the_unit_and_not_a_release() {
    let text = "[Install]\nWantedBy=multi-user.target\nAlias=b.service\n";
    let template = "[Install]\nWantedBy=multi-user.target\nDefaultInstance=main\n";
    let Place { _directory, disk, tree, links } = place(&[("a.service", text), ("t@.service", template)]);
    for unit in ["a.service", "t@.service"] {
        links.link(&disk, unit).unwrap();
        links.enable(&disk, unit, &install_links(&tree, unit)).unwrap();
    }
    let target = |path: &str| fs::read_link(links.directory.join(path)).unwrap();
    assert_eq!(target("multi-user.target.wants/a.service"), Path::new("../a.service"));
    assert_eq!(target("multi-user.target.wants/t@main.service"), Path::new("../t@.service"));
    assert_eq!(target("b.service"), Path::new("a.service"));
    links.disable(&disk, "a.service").unwrap();
    links.disable(&disk, "t@.service").unwrap();
    assert!(!links.directory.join("multi-user.target.wants/a.service").is_symlink());
    assert!(!links.directory.join("b.service").is_symlink());
    assert!(links.directory.join("a.service").is_symlink());
    // An admin may have enabled instances.
    assert!(links.directory.join("multi-user.target.wants/t@main.service").is_symlink());
    links.forget_default_instance(&disk, &tree, "t@.service").unwrap();
    assert!(!links.directory.join("multi-user.target.wants/t@main.service").is_symlink());
}

#[test]
fn what_was_an_alias_may_be_a_unit_of_its_own_when_its_unit_goes() {
    let text = "[Install]\nAlias=old.service\n";
    let Place { _directory, disk, tree, links } = place(&[("new.service", text)]);
    links.link(&disk, "new.service").unwrap();
    links.enable(&disk, "new.service", &install_links(&tree, "new.service")).unwrap();
    links.put(&disk, &links.root.join("current"), Path::new("releases/1")).unwrap();
    let next = tree.with_file_name("2");
    for path in [&next, &next.join("systemd")] {
        disk.make_directory(path, 0o755).unwrap();
    }
    disk.replace(&next.join("systemd/old.service"), b"[Unit]\n", 0o644).unwrap();
    links.check(&next).unwrap();
    // Both at once cannot be, and an admin's link is nobody's.
    disk.replace(&next.join("systemd/new.service"), text.as_bytes(), 0o644).unwrap();
    assert!(matches!(links.check(&next), Err(Error::Taken { .. })));
    disk.remove_file(&next.join("systemd/new.service")).unwrap();
    links.put(&disk, &links.directory.join("old.service"), Path::new("else.service")).unwrap();
    assert!(matches!(links.check(&next), Err(Error::Taken { .. })));
}

#[test]
fn install_sections_go_forth_and_back_but_for_what_is_disabled() {
    let Place { _directory, disk, tree, links } =
        place(&[("a.service", "[Install]\nWantedBy=multi-user.target\nAlias=b.service\n")]);
    let (next, bare) = (tree.with_file_name("2"), tree.with_file_name("3"));
    for (tree, text) in [(&next, "[Install]\nWantedBy=timers.target\nAlias=c.service\n"), (&bare, "[Unit]\n")]
    {
        for path in [tree, &tree.join("systemd")] {
            disk.make_directory(path, 0o755).unwrap();
        }
        disk.replace(&tree.join("systemd/a.service"), text.as_bytes(), 0o644).unwrap();
    }
    let there = || {
        let all =
            ["multi-user.target.wants/a.service", "b.service", "timers.target.wants/a.service", "c.service"];
        all.map(|link| links.directory.join(link).is_symlink())
    };
    let [of_first, of_next, none] = [[true, true, false, false], [false, false, true, true], [false; 4]];
    links.link(&disk, "a.service").unwrap();
    links.enable(&disk, "a.service", &install_links(&tree, "a.service")).unwrap();
    let steps =
        [(&tree, &next, of_next), (&next, &tree, of_first), (&tree, &bare, none), (&bare, &next, of_next)];
    for (leaving, coming, wanted) in steps {
        links.enable_anew(&disk, leaving, coming, "a.service").unwrap();
        assert_eq!(there(), wanted, "{} to {}", leaving.display(), coming.display());
        links.enable_anew(&disk, leaving, coming, "a.service").unwrap();
        assert_eq!(there(), wanted, "done twice");
    }
    links.disable(&disk, "a.service").unwrap();
    links.enable_anew(&disk, &next, &tree, "a.service").unwrap();
    assert_eq!(there(), none);
    // Whoever was interrupted has both.
    links.enable(&disk, "a.service", &install_links(&tree, "a.service")).unwrap();
    links.enable(&disk, "a.service", &install_links(&next, "a.service")).unwrap();
    links.enable_anew(&disk, &tree, &next, "a.service").unwrap();
    assert_eq!(there(), of_next);
}
