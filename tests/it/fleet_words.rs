//! What the page on fleets has an operator type, typed as it stands.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");

/// The commands of the page's first block, without what is said of them.
fn commands() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.md")).unwrap();
    let block = page.split("## Set up").nth(1).and_then(|rest| rest.split("```sh\n").nth(1)).unwrap();
    let lines = block.split("```").next().unwrap().lines();
    let typed = lines.map(|line| line.split(" # ").next().unwrap().trim_end().to_owned());
    typed.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// What is typed on each node, is; what goes on for ever is ended after a while; the timers of both fire meanwhile.
fn script(place: &Path) -> String {
    let second = format!("cutover --config {}/web-2.toml", place.display());
    let mut script = String::from("set -eux\n");
    for line in commands() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rest = || line.strip_prefix("cutover ").unwrap();
        let done = match words[..] {
            ["cutover", "fleet", "join"] => format!("{line}\n{second} {}", rest()),
            ["cutover", "fleet", "check", ..] => {
                format!("{second} {} >/dev/null & \n{line}\nwait $!", rest())
            }
            ["cutover", "fleet", "status", "--watch"] => format!("timeout 2 {line} || [ $? = 124 ]"),
            ["cutover", "fleet", "propose", ..] => format!(
                "for cutover in cutover '{second}'; do\n\
                 (while [ ! -e over ]; do $cutover update || :; sleep 0.2; done) & \n\
                 done\n{line}\ntouch over\nwait"
            ),
            _ => line.clone(),
        };
        writeln!(script, "{done}").unwrap();
    }
    script
}

fn node(place: &Path, name: &str, file: &Path) {
    let root = place.join(name);
    std::fs::create_dir(&root).unwrap();
    let text = format!(
        "root = \"{}\"\n[policy]\njitter = \"0s\"\n[fleet]\nmode = \"synchronous\"\nname = \"shop-web\"\n\
         directory = \"/mnt/coord/shop-web\"\nnode = \"{name}\"\nsigning_key = \"{}\"\npoll = \"200ms\"\n\
         visibility = \"200ms\"\nlead = \"4s\"\ntrial = \"2s\"\nsettle = \"4s\"\ndecider_step = \"300ms\"\nskew = \"2s\"\n",
        root.display(),
        place.join("anna-fleet").display()
    );
    std::fs::write(file, text).unwrap();
}

#[test]
fn the_page_on_fleets_is_typed_as_it_stands() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED the page on fleets: it is typed as root");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    node(place, "web-1", &place.join("shop.toml"));
    node(place, "web-2", &place.join("web-2.toml"));
    std::fs::create_dir(place.join("bin")).unwrap();
    std::os::unix::fs::symlink(CUTOVER, place.join("bin/cutover")).unwrap();
    let prepared = format!(
        "set -eu; cd {place}; export PATH={place}/bin:$PATH HOME={place}\n\
         mount -t tmpfs none /mnt; mkdir /mnt/coord /mnt/etc; mkdir -p /etc/cutover; mount -t tmpfs none /etc/cutover\n\
         mkdir /etc/cutover/keys; cp shop.toml /etc/cutover/shop.toml\n\
         (cat /etc/group; echo cutover:x:4711:) > group; mount --bind group /etc/group\n\
         for version in 2.3.0 2.4.0; do\n\
           mkdir tree-$version; echo $version > tree-$version/app\n\
           cutover pack tree-$version --product shop --version $version -o shop-$version.tar.zst\n\
           for config in /etc/cutover/shop.toml web-2.toml; do\n\
             [ $version = 2.4.0 ] || cutover --config $config update shop-$version.tar.zst --allow-unsigned\n\
             cutover --config $config stage shop-$version.tar.zst --allow-unsigned\n\
           done\n\
         done\n",
        place = place.display()
    );
    let script = prepared + &script(place);
    let done = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&[&done.stdout[..], &done.stderr[..]].concat()).into_owned();
    if told.contains("unshare:") || told.contains("mount: ") {
        eprintln!("SKIPPED the page on fleets: {told}");
        return;
    }
    assert_eq!(done.status.code(), Some(0), "{told}");
    for name in ["web-1", "web-2"] {
        let current = std::fs::read_link(place.join(name).join("current")).unwrap();
        assert_eq!(current, Path::new("releases/2.4.0"), "{name}: {told}");
    }
}
