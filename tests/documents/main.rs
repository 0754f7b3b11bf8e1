//! README and docs: their links lead somewhere, and what they tell people to type works.

mod compare;
mod dockerfile;
mod examples;
mod links;
