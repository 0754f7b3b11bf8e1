//! smoltcp's own TCP sockets talk to each other through a binding and its splice, in virtual time, over legs that lose,
//! duplicate, reorder and delay packets. Both ends must see exactly the bytes that the other one sent.

#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use super::world::{Plan, Rng, World};

    /// Runs `count` connections whose plans come from consecutive seeds; a failure names the seed.
    fn run(first_seed: u64, count: u64, plan: impl Fn(&mut Rng) -> Plan) {
        for seed in first_seed..first_seed + count {
            let mut rng = Rng::new(seed);
            let plan = plan(&mut rng);
            let shown = format!("seed {seed}, {plan:?}");
            if let Err(failure) = World::new(plan, rng).run() {
                panic!("{shown}: {failure}");
            }
        }
    }

    #[test]
    fn a_clean_path() {
        run(1000, 100, |rng| Plan { disorder: false, ..Plan::random(rng, 0) });
    }

    #[test]
    fn disorder_without_loss() {
        run(1500, 100, |rng| Plan { disorder: true, ..Plan::random(rng, 0) });
    }

    #[test]
    fn five_percent_loss() {
        run(2000, 100, |rng| Plan::random(rng, 5));
    }

    #[test]
    fn twenty_percent_loss() {
        run(3000, 100, |rng| Plan::random(rng, 20));
    }

    #[test]
    fn held_responses() {
        run(4000, 100, |rng| Plan { hold: Some(rng.below(4000) as usize), ..Plan::random(rng, 10) });
    }

    #[test]
    fn servers_that_keep_nothing_of_the_promise() {
        run(5000, 100, |rng| Plan {
            client_timestamps: true,
            server_timestamps: false,
            server_buffer: 3000 + rng.below(3000) as usize,
            server_mtu: 576,
            ..Plan::random(rng, 5)
        });
    }

    /// Lengths like those of PROXY headers, and others.
    fn length(rng: &mut Rng) -> usize {
        match rng.below(4) {
            0 => 28,
            1 => 1 + rng.below(107) as usize,
            2 => 52,
            _ => 1 + rng.below(2000) as usize,
        }
    }

    #[test]
    fn bytes_ahead_of_the_clients() {
        for (seed, loss) in [(7000, 0), (7100, 5), (7200, 20)] {
            run(seed, 100, |rng| Plan { prefix: length(rng), ..Plan::random(rng, loss) });
        }
    }

    #[test]
    fn bytes_ahead_of_the_clients_to_small_and_held_servers() {
        run(7300, 100, |rng| Plan {
            prefix: length(rng),
            need: 1,
            hold: rng.below(2).eq(&0).then(|| rng.below(4000) as usize),
            server_buffer: 100 + rng.below(3000) as usize,
            server_mtu: 200 + rng.below(400) as usize,
            ..Plan::small(rng, 5)
        });
    }

    #[test]
    fn bytes_that_the_server_does_not_get() {
        for (seed, loss) in [(8000, 0), (8100, 5), (8200, 20)] {
            run(seed, 100, |rng| Plan { header: length(rng), ..Plan::random(rng, loss) });
        }
    }

    #[test]
    fn bytes_exchanged_for_others() {
        for (seed, loss) in [(9000, 0), (9100, 5), (9200, 20)] {
            let exchanged =
                |rng: &mut Rng| Plan { prefix: length(rng), header: length(rng), ..Plan::random(rng, loss) };
            run(seed, 100, exchanged);
        }
    }

    #[test]
    fn small_buffers() {
        run(6000, 100, |rng| Plan {
            buffer: 1 + rng.below(3000) as u32,
            need: 1,
            server_buffer: 100 + rng.below(1000) as usize,
            client_buffer: 100 + rng.below(1000) as usize,
            ..Plan::small(rng, 5)
        });
    }
}
