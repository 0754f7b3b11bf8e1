//! What the functions of the API share with the machine that runs them.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;

use dataplane::policy::Context;
use dataplane::script_profile::ScriptProfile;
use dataplane::snapshot::ScriptSetId;

use crate::call::{Clock, Refusal};
use crate::pattern::Captures;

thread_local! {
    /// The slot of the machine that runs a script on this thread; null while none does. A thread-local costs a function of
    /// the API two instructions, an upvalue fifty.
    static ACTIVE: Cell<*mut Slot> = const { Cell::new(ptr::null_mut()) };
}

/// The slot of the machine that runs a script on this thread, null while none does.
pub(super) fn active() -> *mut Slot {
    ACTIVE.get()
}

/// Makes a slot the active one, or none.
pub(super) fn activate(slot: *mut Slot) {
    ACTIVE.set(slot);
}

/// What the functions of the API share with the machine that runs them.
pub(crate) struct Slot {
    /// Null outside of a run.
    pub(super) context: *mut Context<'static>,
    pub(super) set: ScriptSetId,
    pub(super) clock: Clock,
    pub(super) deadline: u64,
    /// The last look at the clock.
    pub(super) looked: u64,
    pub(super) overrun: bool,
    /// VM instructions between two looks at the clock, as the hook is set; [`UNWATCHED`], or negative where it must be set.
    pub(super) interval: c_int,
    /// The run needs looks at the clock.
    pub(super) watched: bool,
    pub(super) need: usize,
    /// The flow has a trace; it notes lines, too; instructions since the run began or went on, counted with lines.
    pub(super) traced: bool,
    pub(super) lines: bool,
    pub(super) instructions: u64,
    /// A profile is being made; of the script that runs.
    pub(super) profile: Option<Box<ScriptProfile>>,
    pub(super) sampled: bool,
    /// Registry reference of the text raised at the end of the budget.
    pub(super) overrun_text: c_int,
    /// Bytes of results and error texts, so that nothing with a destructor is alive while they are pushed.
    pub(crate) scratch: Vec<u8>,
    /// The keys of the last texts of VIP and VS port ([`super::Native::kept`]).
    pub(crate) vip_kept: u64,
    pub(crate) port_kept: u64,
    /// Captures of the last match.
    pub(crate) captures: Captures,
}

impl Slot {
    /// The context of the run, to read.
    pub(crate) fn context(&self) -> Result<&Context<'_>, Refusal> {
        // SAFETY: `Machine::go` sets the pointer from a live `&mut Context` and clears it before that borrow ends;
        // the result is bound to a borrow of the slot, which a function of the API holds only within `go`. A shared
        // `Context` is covariant, so shortening its lifetime is sound.
        unsafe { self.context.as_ref() }.ok_or_else(|| Refusal::text("called outside of a run"))
    }

    /// Calls `f` with the context of the run.
    pub(crate) fn with_context<R>(&mut self, f: impl FnOnce(&mut Context<'_>) -> R) -> Result<R, Refusal> {
        // SAFETY: as in `context`; the borrow is exclusive because the slot is borrowed exclusively. The closure is
        // generic over the lifetime, so it cannot put anything of its own into the context.
        let context =
            unsafe { self.context.as_mut() }.ok_or_else(|| Refusal::text("called outside of a run"))?;
        Ok(f(context))
    }

    /// Calls `f` with the context of the run, and an empty text for what is to be given back; `None` outside of a run.
    #[inline]
    pub(crate) fn in_run<R>(&mut self, f: impl FnOnce(&mut Context<'_>, &mut Vec<u8>) -> R) -> Option<R> {
        self.scratch.clear();
        // SAFETY: as in `with_context`; the text is no part of the context.
        let context = unsafe { self.context.as_mut() }?;
        Some(f(context, &mut self.scratch))
    }

    /// The DataScript set whose script runs.
    pub(crate) fn set(&self) -> ScriptSetId {
        self.set
    }

    /// Notes how many bytes a `collect` waits for.
    pub(crate) fn wait_for(&mut self, need: usize) {
        self.need = need;
    }

    /// What tells whether the run's time is over.
    pub(crate) fn deadline(&self) -> impl Fn() -> bool + use<> {
        let (clock, deadline) = (self.clock, self.deadline);
        move || clock() >= deadline
    }
}
