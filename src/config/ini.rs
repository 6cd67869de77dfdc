//! The syntax of `server.ini`: sections, `key=value` lines, `;` and `#` comments.

/// One `key=value` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Left of the `=`.
    pub key: String,
    /// Right of it, trimmed.
    pub value: String,
    /// Line number, from 1.
    pub line: usize,
}

/// A section in the order of the file; a name that appears twice is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What stands between the brackets, such as `system` or `topic=orders`.
    pub name: String,
    /// Line of its first header.
    pub line: usize,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// A line that is none of the above.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct IniError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Splits a text into its sections; lines that are none of it are returned beside them, in order.
pub fn parse(text: &str) -> (Vec<Section>, Vec<IniError>) {
    let mut sections: Vec<Section> = Vec::new();
    let mut errors = Vec::new();
    let mut current = None;
    for (n, raw) in text.lines().enumerate() {
        let line = n + 1;
        let content = raw.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = content.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']').map(str::trim) else {
                errors.push(error(line, "a section must end with ]"));
                continue;
            };
            current = Some(
                sections
                    .iter()
                    .position(|section| section.name == name)
                    .unwrap_or_else(|| {
                        sections.push(Section {
                            name: name.to_owned(),
                            line,
                            entries: Vec::new(),
                        });
                        sections.len() - 1
                    }),
            );
            continue;
        }
        let Some((key, value)) = content.split_once('=') else {
            let what = format!("expected key=value or [section], found {content:?}");
            errors.push(error(line, &what));
            continue;
        };
        let Some(at) = current else {
            errors.push(error(line, "a key must stand in a section"));
            continue;
        };
        let entry = Entry {
            key: key.trim().to_owned(),
            value: without_comment(value).to_owned(),
            line,
        };
        if let Some(first) = sections[at]
            .entries
            .iter()
            .find(|known| known.key == entry.key)
        {
            let what = format!("{} is set already in line {}", entry.key, first.line);
            errors.push(error(line, &what));
            continue;
        }
        sections[at].entries.push(entry);
    }
    (sections, errors)
}

/// Cuts a comment that begins after white space.
fn without_comment(value: &str) -> &str {
    let start = value.char_indices().find(|(at, letter)| {
        matches!(letter, ';' | '#') && value[..*at].ends_with(char::is_whitespace)
    });
    start.map_or(value, |(at, _)| &value[..at]).trim()
}

fn error(line: usize, what: &str) -> IniError {
    IniError {
        line,
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_comments_are_told_apart() {
        let text = "; c\n[system]\nbrokerId = 0 ; the first\ndeletePolicy=delete,168\n\n[topic=a b]\nx=1;2\n[system]\ny=";
        let (sections, errors) = parse(text);
        assert_eq!(errors, []);
        assert_eq!(sections.len(), 2);
        let keys: Vec<_> = sections[0]
            .entries
            .iter()
            .map(|e| (e.key.as_str(), e.value.as_str()))
            .collect();
        assert_eq!(
            keys,
            [("brokerId", "0"), ("deletePolicy", "delete,168"), ("y", "")]
        );
        assert_eq!(sections[1].entries[0].value, "1;2");
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_line() {
        let (sections, errors) = parse("a=1\n[system]\nnonsense\na=1\na=2\n[topic\nb=3");
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 3, 5, 6]);
        assert!(errors[2].what.contains("line 4"), "{errors:?}");
        assert_eq!(sections[0].entries.len(), 2);
    }
}
