//! What holds between the parts of a worker, whatever has happened.

use dataplane::channel::ConnectionRecord;
use dataplane::flow::{self, Flow, FlowState};
use dataplane::memory::{MemoryIo, POOL_FRAMES};
use dataplane::pipeline::Pipeline;
use dataplane::snapshot::{ServerId, ServiceId};
use dataplane::worker::Worker;
use scripting::LuaPolicy;

/// What the worker keeps beside its flows is what its flows say.
pub fn assert_consistent(pipeline: &Pipeline<LuaPolicy>) {
    let flows: Vec<Flow> = pipeline.flows().iter().map(|(_, flow)| *flow).collect();
    let count =
        |wanted: &dyn Fn(&Flow) -> bool| u32::try_from(flows.iter().filter(|f| wanted(f)).count()).unwrap();
    let embryonic = count(&|flow| flow.state() == FlowState::Embryonic);
    let waiting = count(&|flow| matches!(flow.state(), FlowState::Waiting | FlowState::Connecting));
    assert_eq!(pipeline.undecided(), (embryonic, waiting));
    let held = count(&|flow| flow.connection != flow::NONE);
    assert_eq!(pipeline.connections(), held as usize);
    let unscheduled = count(&|flow| flow.flags & flow::DIRTY == 0) as i64 - i64::from(pipeline.timers());
    assert!(unscheduled <= 0, "{unscheduled} flows without a timer");
    for server in 0..u16::try_from(pipeline.snapshot().servers.len()).unwrap() {
        let open = |flow: &Flow| flow.server == server && flow.flags & flow::CONCLUDED == 0;
        assert_eq!(pipeline.balancer().status(ServerId(server)).flows, count(&open), "server {server}");
        assert_eq!(pipeline.uses().of_server(ServerId(server)), count(&|flow| flow.server == server));
    }
    for service in 0..u16::try_from(pipeline.snapshot().services.len()).unwrap() {
        assert_eq!(pipeline.uses().of_service(ServiceId(service)), count(&|flow| flow.service == service));
    }
}

/// Nothing of any flow is left on any worker.
pub fn assert_empty(workers: &mut [&mut Worker<MemoryIo, LuaPolicy>], records: &[ConnectionRecord]) {
    let mut created = 0;
    for worker in workers.iter_mut() {
        let counters = worker.pipeline().counters();
        created += counters.flows_created - counters.handshakes_incomplete;
        assert_empty_worker(worker);
    }
    let logged = |worker: &&mut Worker<MemoryIo, LuaPolicy>| {
        worker.pipeline().snapshot().services.iter().all(|service| service.log_connections)
    };
    if workers.first().is_some_and(logged) {
        let letters: Vec<String> = records.iter().map(|record| record.termination.to_string()).collect();
        assert_eq!(records.len() as u64, created, "one record per connection: {letters:?}");
    }
}

fn assert_empty_worker(worker: &mut Worker<MemoryIo, LuaPolicy>) {
    let pipeline = worker.pipeline();
    assert_eq!(pipeline.flows().len(), 0, "flows: {:?}", pipeline.flows().iter().next());
    assert_eq!(pipeline.connections(), 0, "connections");
    assert_eq!(pipeline.policy().waiting(), 0, "suspended runs");
    assert_eq!(pipeline.undecided(), (0, 0), "embryonic and waiting");
    assert_eq!(pipeline.neighbors_in_use(), 0, "references to neighbours");
    assert_eq!(pipeline.timers(), 0, "timers");
    assert_eq!(pipeline.fragments(), (0, 0), "fragments");
    let counters = pipeline.counters();
    assert_eq!(counters.flows_created, counters.flows_ended);
    for server in 0..u16::try_from(pipeline.snapshot().servers.len()).unwrap() {
        assert_eq!(pipeline.balancer().status(ServerId(server)).flows, 0, "flows of server {server}");
    }
    assert_eq!(worker.io_mut().buffers_free(), POOL_FRAMES, "packet buffers");
}
