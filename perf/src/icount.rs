//! The scenarios on memory instead of DPDK, for counting instructions under valgrind.

use dataplane::memory::MemoryIo;

use crate::bench::Bench;
use crate::scenario::Scenario;
use crate::wire::Memory;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Runs that many windows of a scenario, after those that warm it up; prints how many units were in them. Valgrind
/// counts inside of the rounds only, and starts from zero where `counted` is entered.
pub fn run(scenario: Scenario, floor: bool, windows: u32) -> anyhow::Result<()> {
    // Always the same, so that two runs count the same.
    let clock = || 0;
    let mut bench = Bench::new(scenario, MemoryIo::new(1), Memory, MAC, clock)?;
    bench.prepare()?;
    println!("{}", counted(&mut bench, floor, windows)?);
    Ok(())
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
