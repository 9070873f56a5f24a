//! As much of Markdown as our documents use, turned into roff for man(7).

/// The lines below `heading` up to the next heading of the same level; the whole without its title when it is empty.
pub fn part<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    if heading.is_empty() {
        return text.split_once("\n\n").map(|(_, rest)| rest);
    }
    let start = text.find(&format!("\n{heading}\n"))? + heading.len() + 2;
    let level = heading.split(' ').next()?;
    let rest = &text[start..];
    let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The whole text as roff.
pub fn to_roff(text: &str) -> String {
    let mut out = String::new();
    let mut is_code = false;
    let mut in_list = false;
    for line in text.lines() {
        if line.starts_with("```") {
            out.push_str(if is_code { ".fi\n.RE\n" } else { ".PP\n.RS 4\n.nf\n" });
            is_code = !is_code;
        } else if is_code {
            out.push_str(&guard(&escape(line)));
        } else if let Some(heading) = line.strip_prefix("## ").or(line.strip_prefix("### ")) {
            let macro_name = if line.starts_with("###") { ".SS" } else { ".SH" };
            out.push_str(&format!("{macro_name} {}\n", inline(heading)));
            in_list = false;
        } else if line.is_empty() {
            in_list = false;
            if !out.ends_with(".PP\n") {
                out.push_str(".PP\n");
            }
        } else if line.starts_with('|') {
            out.push_str(&row(line));
        } else if let Some(item) = item(line) {
            out.push_str(&format!(".IP \\(bu 2\n{}", guard(&inline(item))));
            in_list = true;
        } else {
            let line = if in_list { line.trim_start() } else { line };
            out.push_str(&guard(&inline(line)));
        }
    }
    tidy(&out)
}

/// A list's item, numbered or not.
fn item(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("- ") {
        return Some(rest);
    }
    let (number, rest) = line.split_once(". ")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(rest)
}

/// A table's row: the first cell is the term, the last explains it, those between stand in parentheses.
fn row(line: &str) -> String {
    let cells: Vec<&str> =
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('|').trim()).collect();
    let is_rule = cells.iter().all(|cell| cell.trim_matches(['-', ' ', '|']).is_empty());
    let is_head = ["key", "code", "file", "assumed", "exit code of `propose --wait`"].contains(&cells[0]);
    if is_rule || is_head {
        return String::new();
    }
    let (first, last) = (cells[0], cells.last().copied().unwrap_or(""));
    if let Some(head) = first.strip_prefix("**") {
        return format!(
            ".SS {}\n{}",
            inline(head.trim_end_matches("**")),
            guard(&inline(last.trim_matches('*')))
        );
    }
    let between: Vec<&str> = cells
        .iter()
        .skip(1)
        .take(cells.len().saturating_sub(2))
        .copied()
        .filter(|cell| !cell.is_empty())
        .collect();
    let between =
        if between.is_empty() { String::new() } else { format!(" ({})", inline(&between.join("; "))) };
    let last = if cells.len() > 1 { last } else { "" };
    format!(
        ".TP\n{}{between}\n{}",
        guard(&format!("\\fB{}\\fR", escape(&first.replace('`', "")))).trim_end(),
        guard(&inline(last))
    )
}

/// Code, bold, italics and links within a line.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (number, piece) in text.split('`').enumerate() {
        if number % 2 == 1 {
            out.push_str(&format!("\\fB{}\\fR", escape(piece)));
            continue;
        }
        let mut rest = piece.to_owned();
        // [text](target): the text is enough on paper.
        while let Some(at) = rest.find("](") {
            let Some(open) = rest[..at].rfind('[') else { break };
            let Some(close) = rest[at..].find(')') else { break };
            rest = format!("{}{}{}", &rest[..open], &rest[open + 1..at], &rest[at + close + 1..]);
        }
        for (number, piece) in rest.split("**").enumerate() {
            let piece = escape(piece).replace('*', "");
            out.push_str(&if number % 2 == 1 { format!("\\fB{piece}\\fR") } else { piece });
        }
    }
    out
}

/// A text with what roff takes for itself made harmless.
pub fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...").replace(['─', '►'], "\\-")
}

/// A line that roff doesn't take for a command.
fn guard(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}\n") } else { format!("{line}\n") }
}

/// Without empty paragraphs, which man warns of.
fn tidy(roff: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in roff.lines() {
        let is_block =
            |line: &str| [".SH", ".SS", ".TP", ".IP", ".PP"].iter().any(|name| line.starts_with(name));
        if is_block(line) {
            while lines.last() == Some(&".PP") {
                lines.pop();
            }
        }
        let after_heading =
            lines.last().is_none_or(|last| last.starts_with(".SH") || last.starts_with(".SS"));
        if !(line == ".PP" && after_heading) {
            lines.push(line);
        }
    }
    while lines.last() == Some(&".PP") {
        lines.pop();
    }
    lines.join("\n") + "\n"
}
