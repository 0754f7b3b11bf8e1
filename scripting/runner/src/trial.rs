//! A case under all plans: in one piece, with each single cut, byte by byte, and at random.

use std::cell::Cell;
use std::collections::BTreeSet;

use lab::Blueprint;

use crate::cuts::{Pieces, Plan, Random, single_cuts};
use crate::engine::{Case, Engine};
use crate::outcome::{Difference, Outcome, Problem};
use crate::world::{Payload, World};

/// Runs spent on making a random plan that breaks a case smaller.
const SHRINKING: usize = 300;

/// How cases are tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Single cuts of a case that are tried; of more, that many, spread evenly.
    pub cuts: usize,
    /// Random plans of a case.
    pub random: usize,
    /// The random plans follow from it.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { cuts: 4096, random: 24, seed: 1 }
    }
}

/// What was found about a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// `file:line`.
    pub place: String,
    /// Runs, each in a lab of its own.
    pub runs: usize,
    /// Single cuts that were tried.
    pub cuts: usize,
    /// Single cuts that there are.
    pub all_cuts: usize,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With its payloads in one piece.
    Whole(Problem),
    /// Two runs alike had different outcomes.
    Unsteady {
        /// What failed the second time.
        problem: Option<Problem>,
        /// What came out otherwise.
        differences: Vec<Difference>,
    },
    /// With its payloads cut, but not in one piece.
    Cut {
        /// The payloads that were not sent in one piece, with their pieces.
        payloads: Vec<(Payload, Pieces)>,
        /// Of several cuts or of an order, and not of a single cut.
        random: bool,
        /// The expectation that failed.
        problem: Option<Problem>,
        /// What came out otherwise.
        differences: Vec<Difference>,
    },
}

struct Trial<'a> {
    engine: &'a Engine,
    case: &'a Case,
    blueprint: &'a Blueprint,
    runs: Cell<usize>,
    worlds: &'a Cell<usize>,
    lines: std::cell::RefCell<&'a mut BTreeSet<(String, u32)>>,
}

/// Tries a case. `worlds` counts the worlds of the process, `lines` gathers the lines of scripts that were executed.
pub fn try_case(
    engine: &Engine,
    case: &Case,
    blueprint: &Blueprint,
    effort: Effort,
    worlds: &Cell<usize>,
    lines: &mut BTreeSet<(String, u32)>,
) -> CaseReport {
    let runs = Cell::new(0);
    let trial = Trial { engine, case, blueprint, runs, worlds, lines: std::cell::RefCell::new(lines) };
    let mut report = CaseReport {
        name: case.name.clone(),
        place: case.place.clone(),
        runs: 0,
        cuts: 0,
        all_cuts: 0,
        failure: None,
    };
    report.failure = trial.failure(effort, &mut report.cuts, &mut report.all_cuts);
    report.runs = trial.runs.get();
    report
}

impl Trial<'_> {
    fn failure(&self, effort: Effort, cuts: &mut usize, all_cuts: &mut usize) -> Option<Failure> {
        let (whole, payloads) = self.once(Plan::default());
        if let Some(problem) = whole.problem {
            return Some(Failure::Whole(problem));
        }
        let (again, _) = self.once(Plan::default());
        if whole != again {
            let differences = whole.differences(&again);
            return Some(Failure::Unsteady { problem: again.problem, differences });
        }
        let lengths: Vec<usize> = payloads.iter().map(|payload| payload.length).collect();
        let (plans, all) = single_cuts(&lengths, effort.cuts);
        *all_cuts = all;
        let breaks = |plan: &Plan| self.once(plan.clone()).0 != whole;
        for plan in plans {
            *cuts += 1;
            if breaks(&plan) {
                return Some(self.cut(&plan, &whole, &payloads, false));
            }
        }
        if all == 0 {
            return None;
        }
        let mut random = Random::new(effort.seed, &self.case.name);
        let plans = (0..effort.random).map(|_| Plan::random(&lengths, &mut random));
        let breaking = std::iter::once(Plan::bytes(&lengths)).chain(plans).find(|plan| breaks(plan))?;
        let smallest = breaking.shrunk(SHRINKING, breaks);
        Some(self.cut(&smallest, &whole, &payloads, true))
    }

    /// One run in a fresh lab.
    fn once(&self, plan: Plan) -> (Outcome, Vec<Payload>) {
        self.runs.set(self.runs.get() + 1);
        self.worlds.set(self.worlds.get() + 1);
        let world = match World::new(self.blueprint, plan, self.worlds.get()) {
            Ok(world) => world,
            Err(text) => {
                let problem = Problem { place: self.case.place.clone(), text, wanted: None, got: None };
                return (Outcome { problem: Some(problem), ..Outcome::default() }, Vec::new());
            }
        };
        let (world, problem) = self.engine.run(self.case, world);
        let Some(world) = world else { return (Outcome { problem, ..Outcome::default() }, Vec::new()) };
        self.lines.borrow_mut().extend(world.lines());
        let payloads = world.payloads().to_vec();
        let (flows, tables) = world.end();
        (Outcome { problem, flows, tables }, payloads)
    }

    /// The report on a plan that breaks the case.
    fn cut(&self, plan: &Plan, whole: &Outcome, payloads: &[Payload], random: bool) -> Failure {
        let (outcome, _) = self.once(plan.clone());
        let cut = plan.cut_payloads().filter_map(|(number, pieces)| {
            payloads.get(number).map(|payload| (payload.clone(), pieces.clone()))
        });
        let differences = whole.differences(&outcome);
        Failure::Cut { payloads: cut.collect(), random, problem: outcome.problem, differences }
    }
}
