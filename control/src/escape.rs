//! Bytes of any kind as text.

/// `bytes` as text: printable UTF-8 stays, everything else and the backslash becomes `\xNN` per byte, so that the
/// bytes can be recovered from the text.
#[must_use]
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut buffer = [0; 4];
                push_hex(&mut text, character.encode_utf8(&mut buffer).as_bytes());
            } else {
                text.push(character);
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn everything_that_is_not_printable_is_hexadecimal() {
        let cases: [(&[u8], &str); 6] = [
            (b"plain text", "plain text"),
            (b"a\nb\0c\x7f", "a\\x0ab\\x00c\\x7f"),
            (b"back\\slash", "back\\x5cslash"),
            ("größe \u{2028}".as_bytes(), "größe \u{2028}"),
            (b"\xff\xfe ok \xc3", "\\xff\\xfe ok \\xc3"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escape(bytes), expected);
        }
    }
}
