//! Where two threads wait for each other, running.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The other one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alone;

impl std::fmt::Display for Alone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the other worker has ended")
    }
}

impl std::error::Error for Alone {}

/// A place for two.
#[derive(Debug, Default)]
pub struct Meeting {
    arrived: AtomicUsize,
    left: AtomicBool,
    /// What each has to tell the other one.
    told: [AtomicUsize; 2],
}

/// One of the two, as long as it comes to meetings.
#[derive(Debug)]
pub struct Guard<'a>(&'a Meeting);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.left.store(true, Ordering::Release);
    }
}

impl Meeting {
    /// Whoever drops it comes no more.
    pub fn guard(&self) -> Guard<'_> {
        Guard(self)
    }

    /// Waits until the other one has come as often. `count` is how often this one has.
    ///
    /// # Errors
    /// [`Alone`] if the other one comes no more; what `meanwhile` fails with.
    pub fn meet(
        &self,
        count: &mut usize,
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        *count += 1;
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < 2 * *count {
            if self.left.load(Ordering::Acquire) && self.arrived.load(Ordering::Acquire) < 2 * *count {
                return Err(Alone.into());
            }
            meanwhile()?;
        }
        Ok(())
    }

    /// For the other one, before the next meeting.
    pub fn tell(&self, from: u8, value: usize) {
        if let Some(told) = self.told.get(usize::from(from)) {
            told.store(value, Ordering::Release);
        }
    }

    /// What it told, after that meeting.
    #[must_use]
    pub fn heard(&self, from: u8) -> usize {
        self.told.get(usize::from(from)).map_or(0, |told| told.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_told_something_has_told_it_before_both_meet() {
        let meeting = &Meeting::default();
        let side = |number: u8| {
            move || {
                let _guard = meeting.guard();
                let mut count = 0;
                for turn in 0..200 {
                    meeting.tell(number, turn * 2 + usize::from(number));
                    meeting.meet(&mut count, || Ok(())).unwrap();
                    assert_eq!(meeting.heard(1 - number), turn * 2 + usize::from(1 - number));
                    meeting.meet(&mut count, || Ok(())).unwrap();
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(side(0));
            scope.spawn(side(1));
        });
    }

    #[test]
    fn nobody_waits_for_one_who_comes_no_more() {
        let meeting = Meeting::default();
        drop(meeting.guard());
        let mut rounds = 0;
        let error = meeting.meet(&mut 0, || {
            rounds += 1;
            Ok(())
        });
        assert!(error.unwrap_err().is::<Alone>() && rounds == 0);
        let busy = Meeting::default().meet(&mut 0, || anyhow::bail!("something else"));
        assert_eq!(busy.unwrap_err().to_string(), "something else");
    }
}
