//! Archives block by block, right or wrong as a case wants them.

use std::io::Write;

/// A header block that can be spoilt.
#[derive(Clone)]
pub struct Head(pub [u8; 512]);

impl Head {
    /// A POSIX header of this type and name: mode 0644, owner 0, time 0, no data.
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self([0; 512])
            .put(0, name.as_ref())
            .put(100, b"0000644\x000000000\x000000000\x0000000000000\x0000000000000\0")
            .put(156, &[kind])
            .put(257, b"ustar\x0000")
    }

    /// The same in GNU's dialect.
    pub fn gnu(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self::new(kind, name).put(257, b"ustar  \0")
    }

    /// The same without a magic.
    pub fn v7(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self::new(kind, name).put(257, &[0; 8])
    }

    /// Overwrites bytes.
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn mode(self, mode: u32) -> Self {
        self.put(100, format!("{mode:07o}\0").as_bytes())
    }

    pub fn size(self, size: u64) -> Self {
        self.put(124, format!("{size:011o}\0").as_bytes())
    }

    pub fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.put(157, target.as_ref())
    }

    /// Sets the checksum.
    pub fn sealed(self) -> Self {
        let blank = self.put(148, b"        ");
        let sum: u32 = blank.0.iter().map(|byte| u32::from(*byte)).sum();
        blank.put(148, format!("{sum:06o}\0 ").as_bytes())
    }
}

/// An archive that grows.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// A header as it is, but for its checksum.
    pub fn head(self, head: Head) -> Self {
        let head = head.sealed();
        self.raw(head.0)
    }

    /// Data, filled up to a block.
    pub fn data(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A header with data, whose size it gets.
    pub fn entry(self, head: Head, data: impl AsRef<[u8]>) -> Self {
        let size = data.as_ref().len() as u64;
        self.head(head.size(size)).data(data)
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.entry(Head::new(b'0', name), content)
    }

    pub fn directory(self, name: impl AsRef<[u8]>) -> Self {
        self.head(Head::new(b'5', name).mode(0o755))
    }

    pub fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.head(Head::new(b'2', name).mode(0o777).link(target))
    }

    pub fn hard(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.head(Head::new(b'1', name).link(target))
    }

    /// An extended header with these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let bytes: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.pax_raw(bytes)
    }

    pub fn pax_raw(self, bytes: impl AsRef<[u8]>) -> Self {
        self.entry(Head::new(b'x', "PaxHeaders/x"), bytes)
    }

    pub fn global(self, records: &[(&str, &[u8])]) -> Self {
        let bytes: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry(Head::new(b'g', "pax_global_header"), bytes)
    }

    /// GNU's long name or link target.
    pub fn long(self, kind: u8, text: impl AsRef<[u8]>) -> Self {
        self.entry(Head::gnu(kind, "././@LongLink"), [text.as_ref(), b"\0"].concat())
    }

    /// The end mark.
    pub fn end(self) -> Vec<u8> {
        self.raw([0; 1024]).0
    }
}

/// One record of an extended header.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A frame with a checksum and the content's size.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.set_pledged_src_size(Some(bytes.len() as u64)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A skippable frame.
pub fn skippable(bytes: &[u8]) -> Vec<u8> {
    [&[0x5a, 0x2a, 0x4d, 0x18], (bytes.len() as u32).to_le_bytes().as_slice(), bytes].concat()
}

/// A frame by hand: descriptor, window, and one stored block.
pub fn zstd_stored(descriptor: u8, after: &[u8], bytes: &[u8]) -> Vec<u8> {
    let block = (bytes.len() as u32) << 3 | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, descriptor], after, &block.to_le_bytes()[..3], bytes].concat()
}
