//! One at a time gives the workers another configuration: a reload, or what looks whether something can be let go.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Turn;

/// Whose turn it is. What a turn leaves to the next is kept here in between, and is all that is locked, for moments only: who
/// waits knows what for, and gives up in time.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    over: Condvar,
}

enum State {
    Free(Turn),
    Taken(Purpose),
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A reload: another one does not wait for it.
    Reload,
    /// To look what can be let go: mostly it is over soon.
    Tidy,
}

impl Default for State {
    fn default() -> Self {
        State::Free(Turn::default())
    }
}

/// A turn; over when it is dropped.
pub(super) struct Held<'a> {
    turns: &'a Turns,
    pub(super) turn: Turn,
}

impl Turns {
    /// For a reload: waits for one that tidies, so long at most; `None` at once if it is another reload.
    pub(super) fn reload(&self, patience: Duration) -> Option<Held<'_>> {
        self.take(Purpose::Reload, patience, |state| matches!(state, State::Taken(Purpose::Tidy)))
    }

    /// To tidy: `None` if somebody has a turn.
    pub(super) fn tidy(&self) -> Option<Held<'_>> {
        self.take(Purpose::Tidy, Duration::ZERO, |_| false)
    }

    /// True once nobody has a turn, which is waited for, so long at most.
    pub(super) fn are_over(&self, patience: Duration) -> bool {
        matches!(*self.when_not(patience, |state| matches!(state, State::Taken(_))), State::Free(_))
    }

    fn take(&self, purpose: Purpose, patience: Duration, waits: fn(&State) -> bool) -> Option<Held<'_>> {
        let mut state = self.when_not(patience, waits);
        match std::mem::replace(&mut *state, State::Taken(purpose)) {
            State::Free(turn) => Some(Held { turns: self, turn }),
            taken @ State::Taken(_) => {
                *state = taken;
                None
            }
        }
    }

    /// The state when `waits` is no longer true of it, or when patience ends.
    fn when_not(&self, patience: Duration, waits: fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.over.wait_timeout_while(self.lock(), patience, |state| waits(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.turns.lock() = State::Free(std::mem::take(&mut self.turn));
        self.turns.over.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_waits_longer_than_patience_lasts() {
        let turns = Turns::default();
        let tidies = turns.tidy().unwrap();
        assert!(!turns.are_over(SHORT) && turns.reload(SHORT).is_none() && turns.tidy().is_none());
        drop(tidies);
        let reloads = turns.reload(SHORT).unwrap();
        assert!(turns.reload(LONG).is_none() && turns.tidy().is_none(), "at once");
        assert!(!turns.are_over(SHORT));
        drop(reloads);
        assert!(turns.are_over(SHORT));
    }

    #[test]
    fn a_reload_follows_one_that_tidies_and_goes_on_with_what_it_left() {
        let turns = Turns::default();
        let mut tidies = turns.tidy().unwrap();
        std::thread::scope(|scope| {
            let late = scope.spawn(|| turns.reload(LONG).map(|held| held.turn.late.len()));
            let over = scope.spawn(|| turns.are_over(LONG));
            std::thread::sleep(SHORT);
            tidies.turn.late.push((0, std::sync::mpsc::channel().1));
            drop(tidies);
            assert_eq!((late.join().unwrap(), over.join().unwrap()), (Some(1), true));
        });
    }
}
