//! The namespaces of another process, entered by one thread: what it asks of network and files is asked there.
//!
//! A thread that has entered stays there, and so do the processes that it starts; it cannot come back. The other threads
//! stay where they are.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

/// Network and mounts of a process, held open: they outlive it.
#[derive(Debug)]
pub struct Namespaces {
    network: File,
    mounts: File,
}

impl Namespaces {
    /// Those of the process `pid`.
    pub fn of(pid: u32) -> io::Result<Self> {
        let open = |kind: &str| File::open(Path::new("/proc").join(pid.to_string()).join("ns").join(kind));
        Ok(Self { network: open("net")?, mounts: open("mnt")? })
    }

    /// Takes the calling thread there, for the rest of its life.
    pub fn enter(&self) -> io::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        // Threads share their view of the files until one asks for its own.
        unshare(CloneFlags::CLONE_FS)?;
        Ok(setns(&self.mounts, CloneFlags::CLONE_NEWNS)?)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn one_thread_enters_and_the_others_stay() {
        let mut child = match Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "sh",
                "-c",
                "mount -t tmpfs there /mnt && : >/mnt/there && echo; read _",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(child) if nix::unistd::geteuid().is_root() => child,
            _ => return eprintln!("SKIPPED one_thread_enters_and_the_others_stay: needs root and unshare"),
        };
        let mut word = String::new();
        let mut output = io::BufReader::new(child.stdout.take().unwrap());
        io::BufRead::read_line(&mut output, &mut word).unwrap();
        if word.is_empty() {
            return eprintln!("SKIPPED one_thread_enters_and_the_others_stay: no namespaces here");
        }
        let there = Namespaces::of(child.id()).unwrap();
        let seen = std::thread::spawn(move || {
            there.enter().unwrap();
            let inner = Command::new("cat").arg("/proc/net/dev").output().unwrap();
            (Path::new("/mnt/there").exists(), String::from_utf8(inner.stdout).unwrap().lines().count())
        });
        let (file_is_there, lines) = seen.join().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(file_is_there && !Path::new("/mnt/there").exists());
        // Two lines of heading, and the loopback device alone.
        assert_eq!(lines, 3);
    }
}
