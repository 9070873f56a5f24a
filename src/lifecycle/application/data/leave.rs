//! Parts of data that stay where they are, whatever becomes of the rest: what an admin declares with `leave`.

use std::path::{Component, Path, PathBuf};

/// Paths within the data, none of them `..` or absolute.
#[derive(Clone, Copy, Debug)]
pub struct Leave<'a>(&'a [PathBuf]);

impl<'a> Leave<'a> {
    pub const NOTHING: Self = Self(&[]);

    pub fn of(paths: &'a [PathBuf]) -> Self {
        Self(paths)
    }

    pub fn is_nothing(self) -> bool {
        self.0.is_empty()
    }

    /// Whether this path within the data stays, with all that is in it.
    pub fn is(self, path: &Path) -> bool {
        self.0.iter().any(|left| left == path)
    }

    /// Whether something within this path stays, so that the path itself must.
    pub fn is_below(self, path: &Path) -> bool {
        self.0.iter().any(|left| left != path && left.starts_with(path))
    }

    pub fn paths(self) -> impl Iterator<Item = &'a Path> {
        self.0.iter().map(PathBuf::as_path)
    }
}

/// Whether a path can be one of them: a name within the data.
pub fn is_within(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path.file_name().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_known_by_its_whole_name() {
        let paths = ["uploads", "a/b"].map(PathBuf::from);
        let leave = Leave::of(&paths);
        for (path, is, is_below) in
            [("uploads", true, false), ("uploads2", false, false), ("a", false, true), ("a/b", true, false)]
        {
            assert_eq!(
                (leave.is(Path::new(path)), leave.is_below(Path::new(path))),
                (is, is_below),
                "{path}"
            );
        }
        assert!(leave.is_below(Path::new("")) && !Leave::NOTHING.is_below(Path::new("")));
        assert!(is_within(Path::new("a/b")));
        for bad in ["", "/a", "..", "a/..", "."] {
            assert!(!is_within(Path::new(bad)), "{bad}");
        }
    }
}
