//! Names in archives: bytes, relative, and never upwards.

use super::{COMPONENT_MAX, PATH_MAX, Rule};

/// The name without `.` and empty components, and whether it was written as a directory's (`a/`, `a/.`).
///
/// An empty result is the tree's root.
pub fn normalised(name: &[u8]) -> Result<(Vec<u8>, bool), Rule> {
    if name.is_empty() {
        return Err(Rule::EmptyName);
    }
    if name.len() > PATH_MAX {
        return Err(Rule::NameTooLong);
    }
    if name.contains(&0) {
        return Err(Rule::NulInName);
    }
    if name.iter().all(|byte| *byte == b'/') {
        // So Python's tarfile names the top directory, when it is told to leave its name out.
        return Ok((Vec::new(), true));
    }
    if name.starts_with(b"/") {
        return Err(Rule::AbsoluteName);
    }
    let mut path = Vec::with_capacity(name.len());
    let mut is_directory = false;
    for component in name.split(|byte| *byte == b'/') {
        is_directory = matches!(component, b"" | b".");
        match component {
            b"" | b"." => continue,
            b".." => return Err(Rule::ParentInName),
            long if long.len() > COMPONENT_MAX => return Err(Rule::ComponentTooLong),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok((path, is_directory))
}

/// The name of something that is no directory.
pub fn of_file(name: &[u8]) -> Result<Vec<u8>, Rule> {
    match normalised(name)? {
        (_, true) => Err(Rule::SlashAfterFile),
        (path, false) => Ok(path),
    }
}

/// Checks what a symbolic link points to: any path, since nothing is ever written through a link.
pub fn check_target(target: &[u8]) -> Result<(), Rule> {
    if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
        return Err(Rule::LinkTarget);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_root_and_keep_their_bytes() {
        let accepted: [(&[u8], &[u8], bool); 9] = [
            (b"/", b"", true),
            (b"//", b"", true),
            (b"a/b", b"a/b", false),
            (b"./a//./b", b"a/b", false),
            (b"a/b/", b"a/b", true),
            (b"./", b"", true),
            (b".", b"", true),
            (b"\xff\n", b"\xff\n", false),
            (b"...", b"...", false),
        ];
        for (name, path, is_directory) in accepted {
            assert_eq!(normalised(name), Ok((path.to_vec(), is_directory)), "{name:?}");
        }
        let refused: [(&[u8], Rule); 7] = [
            (b"", Rule::EmptyName),
            (b"/a", Rule::AbsoluteName),
            (b"..", Rule::ParentInName),
            (b"a/../b", Rule::ParentInName),
            (b"a\0b", Rule::NulInName),
            (&[b'a'; 256], Rule::ComponentTooLong),
            (&b"a/".repeat(2048), Rule::NameTooLong),
        ];
        for (name, rule) in refused {
            assert_eq!(normalised(name), Err(rule), "{name:?}");
        }
    }
}
