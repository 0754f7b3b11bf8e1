//! The runs that wait in `collect`.

use dataplane::policy::RunId;

use super::Place;
use crate::call::Coroutine;

/// A run that waits.
pub(super) struct Waiting {
    pub(super) coroutine: Coroutine,
    pub(super) need: usize,
    pub(super) place: Place,
}

/// The runs that wait, by their ids: 24 bits of place, 8 bits that change with each use of the place.
pub(super) struct Slab {
    places: Vec<(u8, Option<Waiting>)>,
    free: Vec<u32>,
    pub(super) used: usize,
    most: usize,
}

const PLACE_BITS: u32 = 24;

impl Slab {
    pub(super) fn new(most: usize) -> Self {
        Slab { places: Vec::new(), free: Vec::new(), used: 0, most: most.min(1 << PLACE_BITS) }
    }

    pub(super) fn insert(&mut self, waiting: Waiting) -> Result<RunId, Waiting> {
        if self.used >= self.most {
            return Err(waiting);
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => match u32::try_from(self.places.len()) {
                Ok(place) => {
                    self.places.push((0, None));
                    place
                }
                Err(_) => return Err(waiting),
            },
        };
        let Some((generation, held)) = self.places.get_mut(place as usize) else { return Err(waiting) };
        *held = Some(waiting);
        self.used += 1;
        Ok(RunId(u32::from(*generation) << PLACE_BITS | place))
    }

    pub(super) fn remove(&mut self, run: RunId) -> Option<Waiting> {
        let place = run.0 & ((1 << PLACE_BITS) - 1);
        let (generation, held) = self.places.get_mut(place as usize)?;
        if u32::from(*generation) != run.0 >> PLACE_BITS {
            return None;
        }
        let waiting = held.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(place);
        self.used -= 1;
        Some(waiting)
    }
}
