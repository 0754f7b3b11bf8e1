//! Script texts before they are parsed.

/// Bytes of the UTF-8 byte order mark at the start of a text: 3 or 0.
#[must_use]
pub fn bom_bytes(text: &[u8]) -> usize {
    if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

/// The text without a byte order mark. CRLF stays: Lua reads it as one line end.
#[must_use]
pub fn body(text: &[u8]) -> &[u8] {
    text.get(bom_bytes(text)..).unwrap_or(text)
}

/// The text for the checks, as UTF-8 and byte for byte at the same places as [`body`]: where it is not UTF-8, what is
/// not ASCII becomes `?`; carriage returns become blanks.
pub(crate) fn parseable(text: &[u8]) -> String {
    as_text(body(text)).replace('\r', " ")
}

/// The bytes as text of the same length: where they are not UTF-8, what is not ASCII becomes `?`.
pub(crate) fn as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect(),
    }
}
