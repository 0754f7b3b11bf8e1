//! What weir costs: the parts of `weir-perf`, of its benches per stage and of the tests that need them. Nothing of it is a
//! part of weir. `perf/README.md` says what is measured and how.

pub mod bench;
pub mod compare;
pub mod frame;
pub mod icount;
pub mod load;
pub mod measure;
pub mod pair;
pub mod peer;
pub mod plot;
pub mod publish;
pub mod report;
pub mod sampler;
pub mod scenario;
pub mod surroundings;
pub mod tables;
pub mod tsc;
pub mod wire;
