//! What clients ask and what servers answer: a request of fixed size that names a pool, and an answer of fixed size that
//! begins with the name of the pool whose server it is.

/// Bytes of a request. A balancer has to see the first dozen to decide.
pub const REQUEST: usize = 64;
/// Bytes of an answer.
pub const ANSWER: usize = 128;
/// The pools.
pub const POOLS: [&str; 2] = ["blue", "green"];

/// A request for the pool of this number.
pub fn request(pool: usize) -> [u8; REQUEST] {
    filled(&format!("GET /{} ", name(pool)))
}

/// The answer of a server of that pool.
pub fn answer(pool: &str) -> [u8; ANSWER] {
    filled(&format!("{pool} "))
}

/// Whether an answer is from that pool; with `None` from any.
pub fn is_from(answer: &[u8; ANSWER], pool: Option<usize>) -> bool {
    let of = |number: usize| *answer == self::answer(name(number));
    pool.map_or_else(|| (0..POOLS.len()).any(of), of)
}

fn name(pool: usize) -> &'static str {
    POOLS.get(pool % POOLS.len()).copied().unwrap_or_default()
}

/// The text, dots, and a line end.
fn filled<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b'.'; N];
    for (byte, of_text) in bytes.iter_mut().zip(text.bytes()) {
        *byte = of_text;
    }
    if let Some(last) = bytes.last_mut() {
        *last = b'\n';
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert!(request(1).starts_with(b"GET /green ") && request(1).ends_with(b".\n"));
        assert!(is_from(&answer("green"), Some(1)) && is_from(&answer("green"), None));
        assert!(!is_from(&answer("green"), Some(0)) && !is_from(&answer("red"), None));
    }
}
