//! A buffer for one frame of any size.

use crate::io::PacketBuf;

/// Bytes in a [`Linear`]: all that the offsets of [`crate::parse::Headers`] reach.
pub const ROOM: usize = u16::MAX as usize;

/// A frame of up to [`ROOM`] bytes in one piece. `Default` has no room, and takes none.
#[derive(Default)]
pub struct Linear {
    memory: Box<[u8]>,
    len: usize,
}

impl Linear {
    /// Empty, with all its room.
    #[must_use]
    pub fn new() -> Self {
        Linear { memory: vec![0; ROOM].into_boxed_slice(), len: 0 }
    }

    /// Makes it a copy of `frame`. `false`, and nothing done, when there is no room.
    pub fn copy(&mut self, frame: &[u8]) -> bool {
        let fits = self.set_len(frame.len());
        if fits {
            self.bytes_mut().copy_from_slice(frame);
        }
        fits
    }
}

impl PacketBuf for Linear {
    fn bytes(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }

    fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.memory.len();
        if fits {
            self.len = len;
        }
        fits
    }
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linear").field("len", &self.len).field("room", &self.memory.len()).finish()
    }
}
