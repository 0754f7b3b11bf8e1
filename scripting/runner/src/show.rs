//! Values as a report shows them.

use std::fmt::Write;

/// Bytes that are shown of a long text.
const MOST: usize = 160;

/// Bytes as Lua writes them, cut where they are many.
#[must_use]
pub fn bytes(text: &[u8]) -> String {
    let mut shown = String::from("\"");
    for byte in text.get(..MOST).unwrap_or(text) {
        let _ = match byte {
            b'"' | b'\\' => write!(shown, "\\{}", char::from(*byte)),
            b'\n' => write!(shown, "\\n"),
            b'\r' => write!(shown, "\\r"),
            b' '..=b'~' => write!(shown, "{}", char::from(*byte)),
            _ => write!(shown, "\\{byte:03}"),
        };
    }
    shown.push('"');
    if text.len() > MOST {
        let _ = write!(shown, "... ({} bytes)", text.len());
    }
    shown
}

/// How `got` differs from `wanted`.
#[must_use]
pub fn difference(wanted: &[u8], got: &[u8]) -> String {
    let same = wanted.iter().zip(got).take_while(|(a, b)| a == b).count();
    if same == got.len() && same < wanted.len() {
        return format!("only the first {same} of {} bytes", wanted.len());
    }
    if same == wanted.len() && same < got.len() {
        return format!("these, and then {}", bytes(got.get(same..).unwrap_or_default()));
    }
    format!("{} bytes, from byte {same} on {}", got.len(), bytes(got.get(same..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_escaped_and_cut() {
        assert_eq!(bytes(b"a\"\\\r\n\0\xff~"), r#""a\"\\\r\n\000\255~""#);
        assert!(bytes(&[b'x'; 200]).ends_with("x\"... (200 bytes)"));
    }

    #[test]
    fn a_difference_says_where_it_begins() {
        assert_eq!(difference(b"hello", b"he"), "only the first 2 of 5 bytes");
        assert_eq!(difference(b"he", b"hello"), "these, and then \"llo\"");
        assert_eq!(difference(b"hello", b"heLLo!"), "6 bytes, from byte 2 on \"LLo!\"");
    }
}
