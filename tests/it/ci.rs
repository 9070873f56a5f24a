//! The scripts for CI, as they stand: what they publish is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::refusals::Desk;

fn run(desk: &Desk, script: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_cutover"));
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", program.parent().unwrap().display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci").join(script);
    let done = Command::new("sh")
        .arg(script)
        .env_clear()
        .env("PATH", path)
        .envs(variables.iter().copied())
        .current_dir(desk.path("."))
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (done.status.success(), said)
}

#[test]
fn what_the_scripts_publish_is_installed() {
    let desk = Desk::new();
    fs::create_dir(desk.path("place")).unwrap();
    let place = desk.path("place");
    let text = fs::read_to_string(desk.path("node.toml")).unwrap();
    let from = format!("file://{}", desk.path("source").display());
    fs::write(desk.path("node.toml"), text.replace(&from, &format!("file://{}", place.display()))).unwrap();
    // What came from another place is not this channel's.
    fs::remove_dir_all(desk.path("root")).unwrap();
    fs::create_dir(desk.path("root")).unwrap();
    let key = fs::read_to_string(desk.path("team")).unwrap();
    for (version, key) in [("2.0", desk.path("team").to_str().unwrap()), ("2.1+b", key.as_str())] {
        fs::write(desk.path("app/file"), format!("content of {version}\n").repeat(500)).unwrap();
        let variables = [
            ("TREE", "app"),
            ("PRODUCT", "shop"),
            ("VERSION", version),
            ("TO", place.to_str().unwrap()),
            ("KEY", key),
        ];
        let (is_done, said) = run(&desk, "publish.sh", &variables);
        assert!(is_done, "{version}: {said}");
        let (code, said) = desk.update();
        assert_eq!((code, desk.active().as_str()), (0, version), "{said}");
    }
    let serial = || {
        let channel = fs::read_to_string(place.join("stable.channel")).unwrap();
        channel.lines().find_map(|line| line.strip_prefix("serial = ")).unwrap().to_owned()
    };
    let before = serial();
    let variables = [("PRODUCT", "shop"), ("TO", place.to_str().unwrap()), ("KEY", key.as_str())];
    let (is_done, said) = run(&desk, "resign.sh", &variables);
    assert!(is_done && serial() != before, "{said}");
    let (code, said) = desk.update();
    assert_eq!((code, desk.active().as_str()), (0, "2.1+b"), "{said}");
}

/// Runs a script in a root that has the programs of this machine, the script, the desk, and no network but its own.
const BARE: &str = r#"set -eu
ip link set lo up
mkdir bare
mount -t tmpfs none bare
for name in usr bin sbin lib lib64; do
    if [ -L "/$name" ]; then cp -P "/$name" bare/; elif [ -d "/$name" ]; then mkdir "bare/$name"; mount --rbind "/$name" "bare/$name"; fi
done
mkdir -m 1777 bare/tmp
mkdir -p bare/dev "bare$DESK" bare/scripts
: >bare/dev/null
mount --bind /dev/null bare/dev/null
mount --bind "$DESK" "bare$DESK"
mount --bind "$SCRIPTS" bare/scripts
cp "$PROGRAM" bare/cutover
exec chroot bare /usr/bin/env -C "$DESK" PATH=/:/usr/bin:/bin sh "/scripts/$1"
"#;

#[test]
fn the_scripts_need_nothing_but_the_program_and_a_shell() {
    if !crate::node::needs_root("the_scripts_need_nothing_but_the_program_and_a_shell") {
        return;
    }
    let desk = Desk::new();
    let place = desk.path(".").canonicalize().unwrap();
    fs::create_dir(place.join("place")).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    let key = fs::read_to_string(desk.path("team")).unwrap();
    for (script, version) in [("publish.sh", "2.0"), ("publish.sh", "2.1"), ("resign.sh", "2.1")] {
        let done = Command::new("unshare")
            .args(["--mount", "--net", "--fork", "sh", "-c", BARE, "sh", script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs([("DESK", place.as_path()), ("SCRIPTS", &scripts)])
            .env("PROGRAM", env!("CARGO_BIN_EXE_cutover"))
            .envs([
                ("TREE", "app"),
                ("PRODUCT", "shop"),
                ("VERSION", version),
                ("TO", "place"),
                ("KEY", &key),
            ])
            .current_dir(&place)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script} {version}: {said}");
        fs::remove_dir(place.join("bare")).unwrap();
    }
    let channel = fs::read_to_string(place.join("place/stable.channel")).unwrap();
    assert!(channel.contains("release = 2.1 ") && channel.contains("also = 2.0 "), "{channel}");
    assert!(channel.contains("serial = 3\n"), "{channel}");
}

#[test]
fn a_script_that_lacks_something_says_what() {
    let desk = Desk::new();
    let (is_done, said) = run(&desk, "publish.sh", &[("TREE", "app")]);
    assert!(!is_done && said.contains("PRODUCT"), "{said}");
}
