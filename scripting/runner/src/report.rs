//! What was found, for people and for programs.

mod json;
mod junit;
mod tap;
mod text;

pub use json::{case_json, coverage_json, file_json};
pub use junit::junit;
pub use tap::Tap;
pub use text::{case_text, coverage_text, failure_lines, problem_lines};
