//! Pages of frames (what each frame is and must be) and of locations (in which frame each file begins).
//!
//! ```text
//! frame:     compressed size, plain size, kind (0 links, 1 group, 2 chunk, 3 hard links, 4 end), sha256[32] of the compressed bytes
//! location:  number of the file's first frame, as the signed difference to that of the file before it on this page
//! ```

use super::codec::{Cursor, put, put_signed};
use super::error::{Error, malformed};
use super::verified::Verified;
use crate::types::Digest;

/// Plain bytes of a frame.
pub const FRAME_MAX: u64 = 16 << 20;
/// By how much a frame may be longer compressed than plain.
pub const FRAME_EXPANSION_MAX: u64 = 64 << 10;
const FRAMES: &str = "a page of frames";
const LOCATIONS: &str = "a page of locations";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Members of symbolic links, in path order.
    Links,
    /// Whole members of small files; begins with the padding and ends with the header of a large one, if so.
    Group,
    /// A part of the content of a large file, and nothing else.
    Chunk,
    /// Members of further hard links, in path order.
    HardLinks,
    /// Members of directories in path order, then the 1024 zero bytes that end a tar.
    End,
}

/// What a frame is and must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Compressed bytes.
    pub size: u32,
    /// Plain bytes.
    pub plain: u32,
    pub kind: FrameKind,
    /// SHA-256 of the compressed bytes.
    pub digest: Digest,
}

impl Frame {
    /// Appends it to a page.
    pub fn put(&self, page: &mut Vec<u8>) {
        put(page, u64::from(self.size));
        put(page, u64::from(self.plain));
        page.push(match self.kind {
            FrameKind::Links => 0,
            FrameKind::Group => 1,
            FrameKind::Chunk => 2,
            FrameKind::HardLinks => 3,
            FrameKind::End => 4,
        });
        page.extend_from_slice(&self.digest.0);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Error> {
        let size = cursor.number_to(FRAME_MAX + FRAME_EXPANSION_MAX, "a frame is longer than 16 MiB")?;
        let plain = cursor.number_to(FRAME_MAX, "a frame is longer than 16 MiB")?;
        if plain == 0 || size == 0 || size > plain + FRAME_EXPANSION_MAX {
            return Err(malformed(FRAMES, "a frame is empty, or much longer compressed than plain"));
        }
        let kind = match cursor.byte()? {
            0 => FrameKind::Links,
            1 => FrameKind::Group,
            2 => FrameKind::Chunk,
            3 => FrameKind::HardLinks,
            4 => FrameKind::End,
            _ => return Err(malformed(FRAMES, "a frame is of an unknown kind")),
        };
        let digest = cursor.digest()?;
        let narrow = |number| u32::try_from(number).map_err(|_| malformed(FRAMES, "a frame is too long"));
        Ok(Self { size: narrow(size)?, plain: narrow(plain)?, kind, digest })
    }
}

/// Reads a page of exactly `count` frames.
pub fn read_frames<B: AsRef<[u8]>>(page: &Verified<B>, count: u64) -> Result<Vec<Frame>, Error> {
    let mut cursor = Cursor::new(FRAMES, page.as_ref());
    let mut frames = Vec::new();
    while !cursor.is_empty() {
        frames.push(Frame::read(&mut cursor)?);
    }
    if frames.len() as u64 != count {
        return Err(malformed(FRAMES, "it has another number of frames than the root says"));
    }
    Ok(frames)
}

/// Writes a page of locations.
pub fn put_locations(locations: &[u64]) -> Vec<u8> {
    let mut page = Vec::new();
    let mut last = 0;
    for location in locations {
        put_signed(&mut page, location.wrapping_sub(last).cast_signed());
        last = *location;
    }
    page
}

/// Reads a page of exactly `count` locations, each of which names one of `frames` frames.
pub fn read_locations<B: AsRef<[u8]>>(
    page: &Verified<B>,
    count: u64,
    frames: u64,
) -> Result<Vec<u64>, Error> {
    let mut cursor = Cursor::new(LOCATIONS, page.as_ref());
    let mut locations = Vec::new();
    let mut last = 0u64;
    while !cursor.is_empty() {
        last = last
            .checked_add_signed(cursor.signed()?)
            .filter(|location| *location < frames)
            .ok_or(malformed(LOCATIONS, "it names a frame that there is not"))?;
        locations.push(last);
    }
    if locations.len() as u64 != count {
        return Err(malformed(LOCATIONS, "it has another number of files than the root says"));
    }
    Ok(locations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(page: &[u8]) -> Verified<&[u8]> {
        Verified::compare("a page", page, Digest::of(page)).unwrap()
    }

    #[test]
    fn frames_and_locations_are_read_back() {
        let frame = Frame { size: 70, plain: 1024, kind: FrameKind::End, digest: Digest::of(b"") };
        let mut page = Vec::new();
        frame.put(&mut page);
        frame.put(&mut page);
        assert_eq!(read_frames(&verified(&page), 2).unwrap(), [frame, frame]);
        assert!(read_frames(&verified(&page), 1).is_err());
        assert!(read_frames(&verified(&page[..page.len() - 1]), 2).is_err());
        let locations = [7, 7, 8, 2, 900];
        let page = put_locations(&locations);
        assert_eq!(read_locations(&verified(&page), 5, 901).unwrap(), locations);
        assert!(read_locations(&verified(&page), 5, 900).is_err());
        assert!(read_locations(&verified(&page), 4, 901).is_err());
    }
}
