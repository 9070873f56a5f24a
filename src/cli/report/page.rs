//! The page itself: one file without anything from elsewhere, and without scripts.
//!
//! Every text from outside passes [`text`], which escapes it. Lengths in time are drawn as boxes with widths in percent,
//! so that they fit narrow and wide windows without a script.

use jiff::Timestamp;

use crate::types::escaped;

const STYLE: &str = include_str!("style.css");

/// How something is coloured; a word or sign always says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    /// It went back, or waits.
    Warn,
    Bad,
    Calm,
}

impl Tone {
    /// The class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Calm => "calm",
        }
    }
}

pub fn page(title: &str, made: Timestamp, body: &str) -> String {
    let title = text(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <p class=\"quiet small foot\">Made by cutover {} at {}. Times are UTC.</p>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        moment(made)
    )
}

/// A text from outside, safe to stand in the page and in its attributes.
pub fn text(raw: &str) -> String {
    let mut safe = String::new();
    for character in escaped(raw.as_bytes()).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A word in a coloured box.
pub fn tag(tone: Tone, word: &str) -> String {
    format!("<span class=\"tag {}\">{}</span>", tone.class(), text(word))
}

/// What is longer has smaller letters.
const LONG_FROM: usize = 24;

/// A box with a title, one fact in large letters, and what else there is to say (HTML).
pub fn card(title: &str, fact: &str, more: &str) -> String {
    let class = if fact.len() > LONG_FROM { " class=\"long\"" } else { "" };
    format!(
        "<div class=\"card\"><span class=\"quiet small\">{}</span><b{class}>{}</b>{more}</div>\n",
        text(title),
        text(fact)
    )
}

/// A table with these heads, and rows of cells (HTML); in a narrow window each row becomes a paragraph.
pub fn stacking_table(heads: &[&str], rows: &[Vec<String>]) -> String {
    table(heads, rows).replacen("<table>", "<table class=\"stacks\">", 1)
}

/// A table with these heads, and rows of cells (HTML); in a narrow window it scrolls sideways.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = "<div class=\"scroll\"><table>\n<thead><tr>".to_owned();
    for head in heads {
        html.push_str(&format!("<th scope=\"col\">{}</th>", text(head)));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            html.push_str(cell);
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

/// A piece of a bar, from one share of its length to another (0 to 1). With a label it has room for it.
pub fn piece(class: &str, from: f64, to: f64, label: &str, hint: &str) -> String {
    let (from, to) = (from.clamp(0.0, 1.0), to.clamp(0.0, 1.0));
    format!(
        "<span class=\"{class}\" style=\"left:{:.3}%;width:{:.3}%\" title=\"{}\">{}</span>",
        100.0 * from,
        100.0 * (to - from).max(0.0),
        text(hint),
        text(label)
    )
}

/// A moment to the second.
pub fn moment(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Milliseconds, in the unit that reads best.
pub fn milliseconds(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", milliseconds / 60_000, milliseconds % 60_000 / 1000),
        _ => format!("{} h {} min", milliseconds / 3_600_000, milliseconds % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_stays_a_text() {
        let shown = text("<script>alert('x')</script>\u{1b}[31m & \"more\"");
        assert!(!shown.contains('<') && !shown.contains('"') && !shown.contains('\u{1b}'), "{shown}");
        assert!(shown.starts_with("&lt;script&gt;"), "{shown}");
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page("shop on <n1>", Timestamp::UNIX_EPOCH, "<h1>x</h1>\n");
        assert!(page.contains("<title>shop on &lt;n1&gt;</title>"));
        for elsewhere in ["http://", "https://", "<script", "url(", "@import", "src=\""] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn milliseconds_read_well() {
        let shown: Vec<String> = [0, 999, 1500, 61_000, 3_660_000].into_iter().map(milliseconds).collect();
        assert_eq!(shown, ["0 ms", "999 ms", "1.5 s", "1 min 1 s", "1 h 1 min"]);
    }
}
