//! The fuzz targets: each takes arbitrary bytes and panics when a property does not hold.
//!
//! `fuzz/` runs them under libFuzzer (`make fuzz`); `tests/bounded.rs` runs the committed corpora and a bounded number of
//! random inputs on stable Rust, in every `make test`. A new target is a function here, a line in [`ALL`], a file in
//! `fuzz/fuzz_targets/` and a folder in `fuzz/corpus/`.
#![forbid(unsafe_code)]

mod binding;
mod input;
mod options;
mod parse;
mod proxy_protocol;
mod reassembly;

pub use binding::binding;
pub use options::options;
pub use parse::parse;
pub use proxy_protocol::proxy_protocol;
pub use reassembly::reassembly;

/// A target: it panics if a property does not hold for these bytes.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const ALL: [(&str, Target); 5] = [
    ("parse", parse),
    ("reassembly", reassembly),
    ("binding", binding),
    ("options", options),
    ("proxy_protocol", proxy_protocol),
];

/// One's complement sum of 16-bit words (RFC 1071), written down as it is defined; 0xffff and 0 are the same number.
fn sum(parts: &[&[u8]]) -> u64 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    words.map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum::<u64>()
        % 0xffff
}
