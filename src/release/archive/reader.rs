//! The members of an archive, one after the other, each checked by all the rules.

use std::collections::BTreeMap;
use std::io::Read;

use super::header::{BLOCK, Dialect, Header};
use super::ledger::{Admitted, Ledger};
use super::pax::{self, Extended};
use super::sparse::{Map, Span, read_map};
use super::stream::{Fault, Stream};
use super::{EXTENDED_MAX, Error, Limits, Refusal, Rule, TIMES, name};

const GLOBAL_HEADERS_MAX: u64 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path, normalised; empty for the root.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    Directory,
    /// A regular file, whose data come next.
    File {
        /// Bytes, holes included.
        size: u64,
        /// The parts that have data, where there are holes.
        spans: Option<Vec<Span>>,
    },
    Link {
        /// Where it points to, byte for byte.
        target: Vec<u8>,
    },
    /// A further name of a file that came before.
    HardLink {
        /// The normalised path of that file.
        target: Vec<u8>,
    },
}

pub struct Reader {
    stream: Stream,
    ledger: Ledger,
    limits: Limits,
    archive: String,
    /// Data and padding of the current member that nobody took yet.
    data: u64,
    padding: u64,
    /// For messages: the number of the current entry, where it begins, its name.
    number: u64,
    offset: u64,
    name: Vec<u8>,
    global_headers: u64,
    /// Whether it has an extended header, as only POSIX' later form has.
    is_pax: bool,
    root_members: u64,
    extended_bytes: u64,
    left_out: Option<Vec<u8>>,
}

/// What stood before a member's header.
#[derive(Default)]
struct Before {
    extended: Option<Extended>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.extended.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl Reader {
    /// Opens an archive, which is recognised by its first bytes; `name` is for messages.
    pub fn open(file: impl Read + Send + 'static, name: &str, limits: &Limits) -> Result<Self, Error> {
        let place = |fault| error(fault, name, 0, 0, b"");
        let stream = Stream::open(file, limits).map_err(place)?;
        Ok(Self {
            stream,
            ledger: Ledger::new(limits),
            limits: limits.clone(),
            archive: name.to_owned(),
            data: 0,
            padding: 0,
            number: 0,
            offset: 0,
            name: Vec::new(),
            global_headers: 0,
            is_pax: false,
            root_members: 0,
            extended_bytes: 0,
            left_out: None,
        })
    }

    /// What the archive made so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The same, to record the contents' digests in.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// An attribute of another system that was left out, if there was one.
    pub fn left_out(&self) -> Option<&[u8]> {
        self.left_out.as_deref()
    }

    /// A refusal of the current member, for what shows only when it is made.
    pub fn refuse(&self, rule: Rule) -> Error {
        error(Fault::Rule(rule), &self.archive, self.number, self.offset, &self.name)
    }

    /// The next member, after passing over what is left of the one before. At the end everything has been read.
    pub fn next_member(&mut self) -> Result<Option<(Member, Admitted)>, Error> {
        self.advance().map_err(|fault| {
            let at_entry = !matches!(
                fault,
                Fault::Rule(
                    Rule::NoEndMark
                        | Rule::DataAfterEnd
                        | Rule::Empty
                        | Rule::BrokenCompression(_)
                        | Rule::Window
                        | Rule::UnknownFormat
                )
            );
            let number = if at_entry { self.number } else { 0 };
            error(fault, &self.archive, number, self.offset, &self.name)
        })
    }

    /// Gives the data of the current file in parts.
    pub fn data<E: From<Error>>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.data > 0 {
            let most = usize::try_from(self.data).unwrap_or(usize::MAX);
            let place = |fault| error(fault, &self.archive, self.number, self.offset, &self.name);
            let chunk = self.stream.some(most).map_err(place)?;
            let length = chunk.len();
            if length == 0 {
                return Err(place(Fault::Rule(Rule::Truncated)).into());
            }
            take(chunk)?;
            self.stream.take(length);
            self.data -= length as u64;
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<(Member, Admitted)>, Fault> {
        self.stream.skip(std::mem::take(&mut self.data))?;
        self.stream.skip(std::mem::take(&mut self.padding))?;
        self.number += 1;
        self.name.clear();
        self.offset = self.stream.offset();
        let mut before = Before::default();
        let found = self.find(&mut before);
        // What breaks a rule before the header is what is told, whatever comes behind it.
        match before.extended.and_then(|extended| extended.broken) {
            Some(rule) => Err(rule.into()),
            None => found,
        }
    }

    fn find(&mut self, before: &mut Before) -> Result<Option<(Member, Admitted)>, Fault> {
        loop {
            let block = self.stream.block().map_err(|fault| self.of_first(fault, &[0; BLOCK]))?;
            let Some(block) = block else {
                let rule = match before.is_empty() {
                    true if self.stream.offset() == 0 => Rule::Empty,
                    true => Rule::NoEndMark,
                    false => Rule::DanglingHeader,
                };
                return Err(rule.into());
            };
            if block == [0; BLOCK] {
                return if before.is_empty() { self.end() } else { Err(Rule::DanglingHeader.into()) };
            }
            let header = Header::parse(&block).map_err(|rule| self.of_first(rule.into(), &block))?;
            if matches!(header.kind(), b'x' | b'g' | b'L' | b'K') {
                self.extend(before, &header)?;
            } else {
                return self.member(std::mem::take(before), &header).map(Some);
            }
        }
    }

    /// What is wrong with the first block of what was decompressed may be that it never was a tar.
    fn of_first(&self, fault: Fault, block: &[u8; BLOCK]) -> Fault {
        let is_first = self.number == 1 && self.offset == 0 && self.stream.offset() <= BLOCK as u64;
        match fault {
            Fault::Rule(Rule::Checksum | Rule::Truncated) if is_first && block[257..262] != *b"ustar" => {
                Rule::UnknownFormat.into()
            }
            fault => fault,
        }
    }

    /// After a block of zeros nothing but zeros may come, to the end of the file.
    fn end(&mut self) -> Result<Option<(Member, Admitted)>, Fault> {
        self.stream.drain()?;
        if self.ledger.totals().entries == 0 {
            return Err(Rule::Empty.into());
        }
        Ok(None)
    }

    fn extend(&mut self, before: &mut Before, header: &Header<'_>) -> Result<(), Fault> {
        let size = header.size()?;
        if size > EXTENDED_MAX {
            return Err(Rule::ExtendedTooLong.into());
        }
        if header.dialect == Dialect::V7 {
            // Half of all tars read it there, half do not.
            return Err(Rule::EntryType(header.kind()).into());
        }
        self.extended_bytes += size;
        // Enough for names and times of every entry.
        let most = 64 * EXTENDED_MAX + self.limits.entries.saturating_mul(4096);
        if self.extended_bytes > most {
            return Err(Rule::ExtendedTooMany.into());
        }
        let bytes = self.extended(size)?;
        self.is_pax |= matches!(header.kind(), b'g' | b'x');
        match header.kind() {
            b'g' => {
                self.global_headers += 1;
                if self.global_headers > GLOBAL_HEADERS_MAX {
                    return Err(Rule::ExtendedTooMany.into());
                }
                pax::check_global(&bytes)?;
            }
            b'x' if before.extended.is_some() => return Err(Rule::HeadersDisagree("records").into()),
            b'x' => before.extended = Some(Extended::parse(&bytes, &self.limits)),
            b'L' if before.long_name.is_some() => return Err(Rule::HeadersDisagree("name").into()),
            b'L' => before.long_name = Some(long(&bytes, Rule::NulInName)?),
            _ if before.long_link.is_some() => return Err(Rule::HeadersDisagree("link target").into()),
            _ => before.long_link = Some(long(&bytes, Rule::LinkTarget)?),
        }
        Ok(())
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        for _ in 0..size.div_ceil(BLOCK as u64) {
            let block = self.stream.block()?.ok_or(Rule::Truncated)?;
            bytes.extend_from_slice(&block);
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn member(&mut self, before: Before, header: &Header<'_>) -> Result<(Member, Admitted), Fault> {
        let Before { extended, long_name, long_link } = before;
        let extended = extended.unwrap_or_default();
        let sparse = extended.sparse;
        let named = extended.path.as_ref().or(long_name.as_ref()).cloned().unwrap_or_else(|| header.name());
        self.name = sparse.as_ref().map_or(named, |sparse| sparse.name.clone());
        if let Some(rule) = extended.broken {
            return Err(rule.into());
        }
        if self.left_out.is_none() {
            self.left_out = extended.left_out;
        }
        if long_name.is_some() && (extended.path.is_some() || sparse.is_some()) {
            return Err(Rule::HeadersDisagree("name").into());
        }
        if long_link.is_some() && extended.link.is_some() {
            return Err(Rule::HeadersDisagree("link target").into());
        }
        match header.kind() {
            0 | b'0'..=b'2' | b'5' | b'7' | b'S' => {}
            b'3' | b'4' | b'6' => return Err(Rule::SpecialFile.into()),
            // Their other fields need not be what they are for files.
            other => return Err(Rule::EntryType(other).into()),
        }
        let link = extended.link.or(long_link);
        let size = match (header.kind(), extended.size) {
            // By POSIX these have no data, whatever their size says. In its later form a hard link may have some.
            (b'2' | b'5', None) => header.size().map(|_| 0)?,
            (b'1', None) if !self.is_pax => header.size().map(|_| 0)?,
            (_, extended) => size(header, extended)?,
        };
        if sparse.is_some() && header.kind() != b'0' {
            return Err(Rule::SparseKind.into());
        }
        let (kind, path) = self.kind(header, size, link, sparse.map(|sparse| sparse.size))?;
        let is_link = matches!(kind, MemberKind::Link { .. });
        let member = Member {
            path,
            mode: if is_link { 0o777 } else { header.mode()? },
            uid: owner(extended.uid, header.uid()?)?,
            gid: owner(extended.gid, header.gid()?)?,
            mtime: extended.mtime.map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok)?,
            kind,
            xattrs: extended.xattrs,
        };
        if extended.access.is_some_and(|access| access != member.mode & 0o777) {
            return Err(Rule::AccessList.into());
        }
        self.check(&member)?;
        let admitted = self.ledger.admit(&member)?;
        if member.path.is_empty() {
            self.root_members += 1;
            if self.root_members > self.limits.entries {
                return Err(Rule::TooManyEntries(self.limits.entries).into());
            }
        }
        Ok((member, admitted))
    }

    fn kind(
        &mut self,
        header: &Header<'_>,
        size: u64,
        link: Option<Vec<u8>>,
        holes: Option<u64>,
    ) -> Result<(MemberKind, Vec<u8>), Fault> {
        let has_link = link.is_some();
        let link = || link.unwrap_or_else(|| header.link().to_vec());
        // Of old, before directories had a type: told by the header's own name, as everybody tells it.
        let is_old_directory =
            header.kind() == 0 && header.name().ends_with(b"/") && self.name.ends_with(b"/");
        if has_link && !matches!(header.kind(), b'1' | b'2') {
            return Err(Rule::HeadersDisagree("link target").into());
        }
        let kind = match header.kind() {
            b'5' => MemberKind::Directory,
            0 if is_old_directory => MemberKind::Directory,
            // Files of type 7 are contiguous where a system knows such.
            0 | b'0' | b'7' => return self.file(header, size, holes),
            b'S' => return self.old_sparse(header, size),
            b'1' => {
                MemberKind::HardLink { target: name::of_file(&link()).map_err(|_| Rule::HardLinkTarget)? }
            }
            b'2' => {
                let target = link();
                name::check_target(&target)?;
                MemberKind::Link { target }
            }
            other => return Err(Rule::EntryType(other).into()),
        };
        if size > 0 {
            return Err(Rule::DataWithoutFile.into());
        }
        let path = match kind {
            MemberKind::Directory => name::normalised(&self.name)?.0,
            _ => name::of_file(&self.name)?,
        };
        Ok((kind, path))
    }

    fn file(
        &mut self,
        _: &Header<'_>,
        stored: u64,
        holes: Option<u64>,
    ) -> Result<(MemberKind, Vec<u8>), Fault> {
        let path = name::of_file(&self.name)?;
        self.data = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let Some(size) = holes else { return Ok((MemberKind::File { size: stored, spans: None }, path)) };
        let stream = &mut self.stream;
        let (spans, taken) =
            read_map::<Fault>(size, stored, || Ok(stream.block()?.ok_or(Rule::Truncated)?))?;
        self.data -= taken;
        Ok((MemberKind::File { size, spans: Some(spans) }, path))
    }

    fn old_sparse(&mut self, header: &Header<'_>, stored: u64) -> Result<(MemberKind, Vec<u8>), Fault> {
        if header.dialect != Dialect::Gnu {
            return Err(Rule::EntryType(b'S').into());
        }
        let path = name::of_file(&self.name)?;
        let (fields, mut has_more, size) = header.old_sparse()?;
        let mut map = Map::new(size);
        let mut has_ended = map.take_old(fields)?;
        while has_more {
            let block = self.stream.block()?.ok_or(Rule::Truncated)?;
            if has_ended {
                return Err(Rule::SparseMap.into());
            }
            has_ended = map.take_old(&block[..504])?;
            has_more = block[504] != 0;
        }
        let spans = map.finish(stored)?;
        self.data = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        Ok((MemberKind::File { size, spans: Some(spans) }, path))
    }

    fn check(&self, member: &Member) -> Result<(), Rule> {
        let (seconds, _) = member.mtime;
        if !TIMES.contains(&seconds) {
            return Err(Rule::Time);
        }
        match member.kind {
            MemberKind::File { .. } if member.mode & 0o6000 != 0 && !self.limits.allow_setid => {
                Err(Rule::SetId)
            }
            MemberKind::Link { .. } if !member.xattrs.is_empty() => {
                Err(Rule::Attribute("of a symbolic link".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn error(fault: Fault, archive: &str, entry: u64, offset: u64, name: &[u8]) -> Error {
    let archive = archive.to_owned();
    match fault {
        Fault::Machine(source) => Error::Read { archive, source },
        Fault::Rule(rule) => {
            Error::Refused(Box::new(Refusal { archive, entry, offset, name: name.to_vec(), rule }))
        }
    }
}

/// The content of a GNU long name: text, and the NULs at its end.
fn long(bytes: &[u8], nul: Rule) -> Result<Vec<u8>, Rule> {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = &bytes[..length];
    match text {
        [] => Err(Rule::EmptyName),
        _ if text.contains(&0) => Err(nul),
        _ => Ok(text.to_vec()),
    }
}

/// The size by the header, or by the extended header where the other could not hold it.
fn size(header: &Header<'_>, extended: Option<u64>) -> Result<u64, Rule> {
    const OCTAL_MAX: u64 = 0o77_777_777_777;
    match (header.size(), extended) {
        (size, None) => size,
        (Ok(size), Some(extended)) if size == extended => Ok(size),
        (Ok(0 | OCTAL_MAX), Some(extended)) if extended > OCTAL_MAX => Ok(extended),
        (Ok(_), Some(_)) => Err(Rule::HeadersDisagree("size")),
        (wrong, Some(_)) => wrong,
    }
}

fn owner(extended: Option<u64>, header: u64) -> Result<u32, Rule> {
    // The last number means "leave it as it is" to chown.
    u32::try_from(extended.unwrap_or(header)).ok().filter(|id| *id != u32::MAX).ok_or(Rule::Owner)
}
