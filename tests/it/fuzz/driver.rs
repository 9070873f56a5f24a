//! Feeds a parser with damaged inputs: copies of good ones with bytes changed, moved, doubled, cut or mixed.
//!
//! An input whose outcome was not seen before (an error message of another shape, another number of entries) joins the
//! inputs that are damaged further, so that the search goes deeper without help of the compiler.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs of a quick target where nothing else is said.
pub const MANY: u64 = 1500;
/// Runs of a target that works on the disk.
pub const SOME: u64 = 150;
/// The most inputs that are damaged further.
const INPUTS_MAX: usize = 4000;
/// The slowest input is kept if it took longer.
const SLOW: Duration = Duration::from_secs(1);
/// The longest input.
const BYTES_MAX: usize = 256 << 10;

/// A generator of numbers that look random (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// What stands often at the edge of what a parser expects.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"=",
    b"\"",
    b",",
    b"/",
    b"..",
    b"../",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9999999999999999999999",
    b"\xff",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"[",
    b"]",
    b"{",
    b"}",
    b"x-",
    b"format = 1\n",
    b"sha256:",
    b"2026-02-30T00:00:00Z",
    b"\\u0000",
    b"null",
    b"1e999",
    b"\x80\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"ustar\0",
    b"GNU.sparse.map=",
    b"path=",
    b"size=",
];

/// Damages an input.
pub fn damaged(random: &mut Random, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.pick(inputs).clone();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            bytes.extend_from_slice(random.pick::<&[u8]>(TOKENS));
            continue;
        }
        let at = random.below(bytes.len());
        let length = (1 + random.below(64)).min(bytes.len() - at);
        match random.below(9) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => {
                bytes.splice(at..at, random.pick(TOKENS).iter().copied());
            }
            3 => {
                let token = random.pick(TOKENS);
                let end = (at + token.len()).min(bytes.len());
                bytes.splice(at..end, token.iter().copied());
            }
            4 => {
                bytes.drain(at..at + length);
            }
            5 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            6 => bytes.truncate(at),
            7 => {
                let other = random.pick(inputs);
                if !other.is_empty() {
                    let from = random.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
            _ => double_a_line(random, &mut bytes),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn double_a_line(random: &mut Random, bytes: &mut Vec<u8>) {
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (from, to) = (random.below(lines.len()), random.below(lines.len()));
    let mut lines: Vec<_> = lines.iter().collect();
    let line = lines[from];
    lines.insert(to, line);
    *bytes = lines.into_iter().flatten().copied().collect();
}

/// Runs a target on its good inputs, on those kept under `tests/it/fuzz/corpus/<name>/`, and on damaged ones.
///
/// `CUTOVER_FUZZ_SECONDS` lengthens the run; `CUTOVER_FUZZ_SEED` gives another one. A finding is written into the
/// directory for temporary files of the build, and its place is told.
pub fn fuzz(name: &str, least: u64, good: Vec<Vec<u8>>, target: impl Fn(&[u8]) -> String) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = number("CUTOVER_FUZZ_SECONDS").map(Duration::from_secs);
    let mut random = Random::new(number("CUTOVER_FUZZ_SEED").unwrap_or(0x5eed) ^ good.len() as u64);
    let mut inputs: Vec<_> = good.into_iter().filter(|input| input.len() <= BYTES_MAX).collect();
    inputs.extend(kept(name));
    let mut seen = HashSet::new();
    let mut slowest = (Duration::ZERO, Vec::new());
    let mut run = |input: &[u8]| {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
        if began.elapsed() > slowest.0 {
            slowest = (began.elapsed(), input.to_vec());
        }
        match outcome {
            Ok(outcome) => seen.insert(shape(&outcome)),
            Err(_) => panic!("finding of target {name}: {}", keep(name, input).display()),
        }
    };
    for input in &inputs {
        run(input);
    }
    let began = Instant::now();
    let mut runs = 0;
    while time.map_or(runs < least, |time| began.elapsed() < time) {
        let input = damaged(&mut random, &inputs);
        if run(&input) && inputs.len() < INPUTS_MAX {
            inputs.push(input);
        }
        runs += 1;
    }
    let (duration, input) = slowest;
    eprint!("fuzz {name}: {runs} runs, {} outcomes, slowest {} ms", seen.len(), duration.as_millis());
    // To be looked at: a busy machine makes anything slow, and a bad input only one.
    if duration > SLOW {
        eprint!(": {}", keep(&format!("{name}-slow"), &input).display());
    }
    eprintln!();
}

/// An outcome without what it quotes and counts.
fn shape(outcome: &str) -> String {
    let mut is_quoted = false;
    let mut text = String::new();
    for character in outcome.chars().take(300) {
        match character {
            '`' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '0'..='9' => {
                if !text.ends_with('0') {
                    text.push('0');
                }
            }
            other => text.push(other),
        }
    }
    text
}

fn kept(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let digest = cutover::types::Digest::of(input).hex();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{}", &digest[..12]));
    fs::write(&path, input).unwrap();
    path
}
