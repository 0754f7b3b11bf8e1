//! Two workers of one weir in this process, and what either sees of the other one's inserts.
#![cfg(test)]

use weir_perf::measure::Lab;
use weir_perf::tables::table::{json, table};
use weir_perf::tables::{LOADS, Plan, run};

#[test]
fn what_scripts_insert_on_one_worker_is_read_on_the_other() {
    let plan = Plan { rounds: 2, nanoseconds: 3_000_000 };
    // On whichever CPUs are free: how long it takes says nothing here.
    let outcome = run(&Lab::open_on(2, Vec::new()).unwrap(), &plan).unwrap();
    assert_eq!((outcome.turns.len(), outcome.idle.len()), (LOADS.len(), 2));
    for (load, turns) in &outcome.turns {
        assert_eq!(turns.len(), 2, "{}", load.text);
        for turn in turns {
            // That each insert that was looked for could be read, with its value, is a condition of its being here.
            assert!(
                turn.inserts > 0.0 && turn.delays.iter().all(|delay| *delay > 0),
                "{}: {turn:?}",
                load.text
            );
            assert_eq!(turn.resyncs, 0, "{}: nobody was thousands of inserts behind", load.text);
        }
    }
    let full = &outcome.turns[3].1;
    assert!(full.iter().all(|turn| turn.burst > 32.0), "{full:?}");
    assert!(table(&outcome, &plan).unwrap().contains(LOADS[3].text));
    assert_eq!(json(&outcome, &plan).unwrap()["loads"].as_array().unwrap().len(), LOADS.len());
}
