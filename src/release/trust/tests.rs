//! Signatures made and checked here, and by the real ssh-keygen.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::*;
use crate::sys::disk::Disk;

const TEXT: &[u8] = b"format = 1\nproduct = shop\n";

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

/// A directory with keys in it.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        Disk::default().replace(&self.path(name), bytes, mode).unwrap();
        self.path(name)
    }

    /// Makes `name` and `name.pub`, and gives the public line.
    fn key(&self, name: &str) -> String {
        let pair = KeyPair::generate(name).unwrap();
        self.write(name, pair.private.as_bytes(), 0o600);
        self.write(&format!("{name}.pub"), pair.public.as_bytes(), 0o644);
        pair.public.trim().to_owned()
    }

    fn sign(&self, key: &str, namespace: Namespace) -> String {
        sign(&self.path(key), namespace, TEXT).unwrap()
    }

    fn ssh_keygen(&self, arguments: &[&str], input: &[u8]) -> (bool, String) {
        let mut child = Command::new("ssh-keygen")
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // What makes a key reads nothing, and may have ended.
        drop(child.stdin.take().unwrap().write_all(input));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &said)
    }
}

fn keyring(lines: &[&str], revoked: &str) -> Keyring {
    let keys = signers::parse(lines.join("\n").as_bytes()).unwrap();
    Keyring::new(keys, Revoked::parse(revoked.as_bytes()).unwrap())
}

fn check(keyring: &Keyring, signature: &str, threshold: u32) -> Result<Vec<Signer>, Refusal> {
    keyring.verify(Namespace::Release, TEXT, Some(signature.as_bytes()), now(), threshold)
}

#[test]
fn ssh_keygen_takes_our_signatures_and_we_take_its() {
    let desk = Desk::new();
    let ours = desk.key("ours");
    let (made, said) =
        desk.ssh_keygen(&["-q", "-t", "ed25519", "-N", "", "-C", "theirs", "-f", "theirs"], b"");
    assert!(made, "{said}");
    let theirs = fs::read_to_string(desk.path("theirs.pub")).unwrap();
    desk.write("signers", format!("us {ours}\nthem {theirs}").as_bytes(), 0o644);
    let trusted = keyring(&[&ours, theirs.trim()], "");
    for key in ["ours", "theirs"] {
        let mine = desk.sign(key, Namespace::Release);
        desk.write("mine.sig", mine.as_bytes(), 0o644);
        let who = if key == "ours" { "us" } else { "them" };
        let arguments =
            ["-Y", "verify", "-f", "signers", "-I", who, "-n", "cutover-release", "-s", "mine.sig"];
        let (good, said) = desk.ssh_keygen(&arguments, TEXT);
        assert!(good, "{said}");
        let (made, signature) =
            desk.ssh_keygen(&["-Y", "sign", "-q", "-n", "cutover-release", "-f", key], TEXT);
        assert!(made, "{signature}");
        let signature = signature.split_inclusive("-----END SSH SIGNATURE-----\n").next().unwrap().to_owned();
        assert_eq!(signature, mine, "ed25519 is deterministic");
        assert_eq!(check(&trusted, &signature, 1).unwrap()[0].name, key);
    }
}

#[test]
fn a_key_held_by_an_agent_signs() {
    let desk = Desk::new();
    let public = desk.key("key");
    let socket = desk.path("agent");
    let mut agent =
        Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        assert!(agent.try_wait().unwrap().is_none(), "the agent ended");
        std::thread::yield_now();
    }
    let with_agent = |program: &str, arguments: &[&str]| {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(desk.directory.path())
            .env("SSH_AUTH_SOCK", &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(TEXT).unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(with_agent("ssh-add", &["-q", "key"]).status.success());
    desk.write("key", b"", 0o600);
    let output = with_agent("ssh-keygen", &["-Y", "sign", "-n", "cutover-release", "-f", "key.pub"]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    let signature = String::from_utf8(output.stdout).unwrap();
    assert_eq!(check(&keyring(&[&public], ""), &signature, 1).unwrap().len(), 1);
}

#[test]
fn roles_times_revocation_and_strangers_are_told_apart() {
    let desk = Desk::new();
    let (key, other) = (desk.key("key"), desk.key("other"));
    let signature = desk.sign("key", Namespace::Release);
    let key_is = |line: &str| line.replace("KEY", &key);
    let why = |lines: &[&str], revoked: &str| match check(&keyring(lines, revoked), &signature, 1) {
        Err(Refusal::TooFew { needed: 1, counted: 0, others }) => others[0].1,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&[&other], ""), NotCounted::Unknown);
    assert_eq!(why(&[&other, &key_is("a namespaces=\"cutover-channel\" KEY")], ""), NotCounted::OtherRole);
    assert_eq!(why(&[&key_is("a valid-before=\"20260531Z\" KEY"), &other], ""), NotCounted::OtherTime);
    assert_eq!(why(&[&key_is("a valid-after=\"20260602Z\" KEY")], ""), NotCounted::OtherTime);
    assert_eq!(why(&[&key], &key), NotCounted::Revoked);
    let fingerprint = keyring(&[&key], "").keys()[0].fingerprint();
    assert_eq!(why(&[&key], &format!("# gone\n{fingerprint} stolen\n")), NotCounted::Revoked);
    assert!(check(&keyring(&[&key, &other], &other), &signature, 1).is_ok());
    let message = check(&keyring(&[&other], ""), &signature, 1).unwrap_err().to_string();
    assert_eq!(message, format!("it is signed by no trusted key: {fingerprint} is not trusted here"));

    let trusted = keyring(&[&key], "");
    assert_eq!(
        trusted.verify(Namespace::Channel, TEXT, Some(signature.as_bytes()), now(), 1).unwrap_err(),
        Refusal::Namespace { found: "cutover-release".into(), wanted: "cutover-channel".into() }
    );
    assert_eq!(trusted.verify(Namespace::Release, TEXT, None, now(), 1).unwrap_err(), Refusal::Unsigned);
    assert!(matches!(
        trusted.verify(Namespace::Fleet, TEXT, Some(signature.as_bytes()), now(), 1),
        Err(Refusal::NoKeys("cutover-fleet"))
    ));
    assert!(matches!(check(&Keyring::default(), &signature, 1), Err(Refusal::NoKeys(_))));
}

#[test]
fn a_threshold_counts_different_keys() {
    let desk = Desk::new();
    let (one, two) = (desk.key("one"), desk.key("two"));
    desk.key("stranger");
    let trusted = keyring(&[&one, &two], "");
    let by = |key: &str| desk.sign(key, Namespace::Release);
    assert_eq!(check(&trusted, &(by("one") + &by("two")), 2).unwrap().len(), 2);
    assert_eq!(check(&trusted, &(by("stranger") + &by("two")), 1).unwrap()[0].name, "two");
    for too_few in [by("one"), by("one") + &by("one"), by("one") + &by("stranger")] {
        let refusal = check(&trusted, &too_few, 2).unwrap_err();
        assert!(matches!(refusal, Refusal::TooFew { needed: 2, counted: 1, .. }), "{refusal}");
    }
}

#[test]
fn no_byte_of_text_or_signature_can_be_changed() {
    let desk = Desk::new();
    let trusted = keyring(&[&desk.key("one"), &desk.key("two")], "");
    let signature = desk.sign("one", Namespace::Release) + &desk.sign("two", Namespace::Release);
    for index in 0..signature.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = signature.clone().into_bytes();
            bytes[index] ^= flip;
            let refused = trusted.verify(Namespace::Release, TEXT, Some(&bytes), now(), 1);
            assert!(refused.is_err(), "byte {index} ^ {flip:#x}");
        }
    }
    // The end of the first signature is a whole file with one good signature.
    let whole = signature.len() / 2;
    for length in (0..signature.len()).filter(|length| *length != whole) {
        let cut = Some(&signature.as_bytes()[..length]);
        assert!(trusted.verify(Namespace::Release, TEXT, cut, now(), 1).is_err(), "{length} bytes");
    }
    for index in 0..TEXT.len() {
        let mut bytes = TEXT.to_vec();
        bytes[index] ^= 1;
        let refused = trusted.verify(Namespace::Release, &bytes, Some(signature.as_bytes()), now(), 1);
        assert!(matches!(refused, Err(Refusal::WrongSignature(_))), "byte {index}");
    }
    for extra in ["\n", " ", "#", "-----BEGIN SSH SIGNATURE-----\n"] {
        assert_eq!(check(&trusted, &format!("{signature}{extra}"), 1), Err(Refusal::NotASignature));
        assert_eq!(check(&trusted, &format!("{extra}{signature}"), 1), Err(Refusal::NotASignature));
    }
    let many = signature.repeat(100);
    assert_eq!(check(&trusted, &many, 1), Err(Refusal::NotASignature));
}

#[test]
fn certificates_and_other_kinds_of_keys_are_refused_with_a_hint() {
    let desk = Desk::new();
    let trusted = keyring(&[&desk.key("key")], "");
    desk.key("authority");
    let run = |arguments: &[&str]| {
        let (good, said) = desk.ssh_keygen(arguments, TEXT);
        assert!(good, "{said}");
        said.split_inclusive("-----END SSH SIGNATURE-----\n").next().unwrap_or_default().to_owned()
    };
    run(&["-q", "-s", "authority", "-I", "me", "-n", "me", "key.pub"]);
    let signature = run(&["-Y", "sign", "-q", "-n", "cutover-release", "-f", "key-cert.pub"]);
    assert_eq!(check(&trusted, &signature, 1), Err(Refusal::Certificate));
    for (kind, bits, name) in [("rsa", "2048", "ssh-rsa"), ("ecdsa", "256", "ecdsa-sha2-nistp256")] {
        run(&["-q", "-t", kind, "-b", bits, "-N", "", "-f", kind]);
        let signature = run(&["-Y", "sign", "-q", "-n", "cutover-release", "-f", kind]);
        assert_eq!(check(&trusted, &signature, 1), Err(Refusal::Algorithm(name.into())));
    }
}

#[test]
fn a_security_key_must_have_been_touched() {
    use sha2::{Digest as _, Sha256};
    use ssh_key::private::Ed25519Keypair;
    use ssh_key::{Algorithm, LineEnding, Signature, SigningKey, SshSig};

    fn raw(key: &impl SigningKey, message: &[u8]) -> Signature {
        key.try_sign(message).unwrap()
    }

    // What a security key does, by a key in memory: it signs the digests of application and message, flags and counter.
    let pair = Ed25519Keypair::from_seed(&[7; 32]);
    let encoded = |parts: &[&[u8]]| -> Vec<u8> {
        let part = |part: &&[u8]| [&u32::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
        parts.iter().flat_map(part).collect()
    };
    let public_bytes = encoded(&[b"sk-ssh-ed25519@openssh.com", &pair.public.0, b"ssh:"]);
    let public = ssh_key::PublicKey::from_bytes(&public_bytes).unwrap();
    let trusted = keyring(&[&public.to_openssh().unwrap()], "");
    let signed = |flags: u8| {
        let data = SshSig::signed_data("cutover-release", HashAlg::Sha512, TEXT).unwrap();
        let tail = [&[flags][..], &9_u32.to_be_bytes()].concat();
        let message = [&Sha256::digest(b"ssh:")[..], &tail, &Sha256::digest(data)].concat();
        let key = ssh_key::PrivateKey::from(pair.clone());
        let inner = raw(&key, &message);
        let signature = Signature::new(Algorithm::SkEd25519, [inner.as_bytes(), &tail].concat()).unwrap();
        let key = public.key_data().clone();
        let text = SshSig::new(key, "cutover-release", HashAlg::Sha512, signature).unwrap();
        text.to_pem(LineEnding::LF).unwrap().trim_end().to_owned() + "\n"
    };
    assert_eq!(check(&trusted, &signed(1), 1).unwrap().len(), 1);
    assert!(check(&trusted, &signed(5), 1).is_ok());
    assert!(matches!(check(&trusted, &signed(0), 1), Err(Refusal::NobodyPresent(_))));
    assert!(matches!(check(&trusted, &signed(4), 1), Err(Refusal::NobodyPresent(_))));
}

#[test]
fn keys_are_loaded_from_files_that_nobody_else_can_write() {
    let desk = Desk::new();
    Disk::default().make_directory(&desk.path("keys"), 0o755).unwrap();
    let (one, two) = (desk.key("keys/one"), desk.key("two"));
    let revoked = desk.write("revoked", format!("{two}\n").as_bytes(), 0o644);
    let loaded = Keyring::load(&[desk.path("keys"), desk.path("two.pub")], &revoked).unwrap();
    assert_eq!(loaded.keys().len(), 2, "private keys are not read");
    assert_eq!(
        loaded.fingerprints(Namespace::Channel, now()),
        [keyring(&[&one], "").keys()[0].fingerprint()]
    );

    let load = |name: &str| Keyring::load(&[desk.path(name)], &revoked);
    assert!(matches!(load("absent"), Err(Error::Missing(_))));
    desk.write("keys/three.pub", format!("# fine\n{one} x\nssh-rsa AAAA\n").as_bytes(), 0o644);
    assert!(matches!(load("keys"), Err(Error::Line { line: 3, problem: Problem::Algorithm(_), .. })));
    fs::set_permissions(desk.path("two.pub"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(load("two.pub"), Err(Error::Owned(_))));
    desk.write("revoked", b"SSHKRL\n\0", 0o644);
    assert!(matches!(load("keys/one.pub"), Err(Error::BinaryList(_))));
    desk.write("revoked", b"SHA1:abc\n", 0o644);
    assert!(matches!(load("keys/one.pub"), Err(Error::Line { line: 1, .. })));
}
