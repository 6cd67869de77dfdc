//! Bytes of messages as people read them: text, JSON, hexadecimal.

/// Deeper than this nothing is indented further.
const INDENT_MAX: usize = 16;

/// How bytes are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Auto,
    Text,
    Json,
    Hex,
}

/// Name of the encoding, and the bytes in it. What is no text, or no JSON, is given as the next that fits.
pub(super) fn encode(bytes: &[u8], format: Format, truncated: bool) -> (&'static str, String) {
    // What was cut within a character is text all the same.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let is_plain = |text: &str| {
        let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
        !text.contains(odd)
    };
    let json = |text: &str| {
        let begins = text.trim_start().starts_with(['{', '[']);
        let parses = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        (begins && !truncated && parses()).then(|| indented(text))
    };
    match format {
        Format::Hex => ("hex", hex(bytes)),
        Format::Text => ("text", String::from_utf8_lossy(bytes).into_owned()),
        Format::Json | Format::Auto => match text.filter(|text| is_plain(text)) {
            Some(text) => match json(text).filter(|_| format == Format::Json) {
                Some(pretty) => ("json", pretty),
                None => ("text", text.to_owned()),
            },
            None => ("hex", hex(bytes)),
        },
    }
}

/// JSON with a line a member; order, numbers and strings stay as they were sent.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut letters = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(letter) = letters.next() {
        if in_string {
            out.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth.min(INDENT_MAX));
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth.min(INDENT_MAX));
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                line(&mut out, depth.min(INDENT_MAX));
            }
            ':' => out.push_str(": "),
            letter if letter.is_whitespace() => {}
            letter => {
                in_string = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

/// Sixteen bytes a line: their place, the bytes, and what of them is ASCII.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(bytes.len() * 5);
    for (n, line) in bytes.chunks(16).enumerate() {
        if n > 0 {
            out.push('\n');
        }
        let _ = write!(out, "{:08x} ", n * 16);
        for at in 0..16 {
            let _ = match line.get(at) {
                Some(byte) => write!(out, " {byte:02x}"),
                None => write!(out, "   "),
            };
        }
        out.push_str("  ");
        let ascii = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        out.extend(line.iter().map(ascii));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_as_what_they_are() {
        let auto = |bytes: &[u8]| encode(bytes, Format::Auto, false);
        assert_eq!(auto(b"plain"), ("text", "plain".to_owned()));
        assert_eq!(auto(&[0, 159]).0, "hex");
        assert_eq!(encode(b"{\"a\":1}", Format::Json, false).0, "json");
        assert_eq!(encode(b"{\"a\":", Format::Json, false).0, "text");
        // Cut within a character.
        assert_eq!(
            encode(&"é".as_bytes()[..1], Format::Auto, true),
            ("text", String::new())
        );
    }

    #[test]
    fn json_is_indented_and_otherwise_as_it_was_sent() {
        let sent = r#"{"z":1.0,"a":[1,{"q\"{":"x,y"}],"e":{ },"n":18446744073709551616}"#;
        let shown = indented(sent);
        let expected = "{\n  \"z\": 1.0,\n  \"a\": [\n    1,\n    {\n      \"q\\\"{\": \"x,y\"\n    }\n  ],\n  \"e\": {},\n  \"n\": 18446744073709551616\n}";
        assert_eq!(shown, expected);
    }

    #[test]
    fn hex_is_laid_out_as_by_hexdump() {
        let shown = hex(b"0123456789abcdef\n");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("00000000  30 31") && lines[0].ends_with("  0123456789abcdef")
        );
        assert!(lines[1].starts_with("00000010  0a") && lines[1].ends_with("  ."));
    }
}
