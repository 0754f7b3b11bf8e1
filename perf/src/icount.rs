//! The scenarios on memory instead of DPDK, for counting instructions under valgrind.

use dataplane::memory::MemoryIo;

use crate::bench::Bench;
use crate::scenario::Scenario;
use crate::wire::Memory;

/// Link address of weir's port.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Runs that many windows of a scenario, after those that warm it up; prints how many units were in them. Valgrind
/// counts inside of the rounds only, and starts from zero where `counted` is entered.
pub fn run(scenario: Scenario, floor: bool, windows: u32) -> anyhow::Result<()> {
    let mut bench = prepared(scenario)?;
    println!("{}", counted(&mut bench, floor, windows)?);
    Ok(())
}

/// A scenario on memory, warm. Two runs do the same: the clock stands still.
pub fn prepared(scenario: Scenario) -> anyhow::Result<Bench<Memory>> {
    let mut bench = Bench::new(scenario, MemoryIo::new(1), Memory, MAC, || 0)?;
    bench.prepare()?;
    Ok(bench)
}

/// perf/icounts.sh names this function.
#[inline(never)]
fn counted(bench: &mut Bench<Memory>, floor: bool, windows: u32) -> anyhow::Result<u64> {
    let mut units = 0;
    for _ in 0..windows {
        units += if floor { bench.floor()? } else { bench.work()? }.units;
    }
    Ok(units)
}
