//! DPDK's environment: memory, devices, the main lcore.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{EalArguments, Error, Port};

/// DPDK, initialised. Dropping it, and whatever was made through it, cleans up: devices are closed, memory is unmapped.
///
/// Not `Send`: it stays on the thread that made it, which is EAL's main lcore from then on.
#[derive(Clone)]
pub struct Eal {
    core: Arc<Core>,
    here: PhantomData<*const ()>,
}

/// What pools and ports keep alive.
pub(crate) struct Core {
    /// Ports that a [`Port`] exists for.
    taken: Mutex<BTreeSet<u16>>,
}

impl Core {
    /// The port is about to be closed; `false` when it has been already.
    pub(crate) fn forget_port(&self, id: u16) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    /// EAL is never to be cleaned up: something may still use its memory.
    pub(crate) fn keep_forever(self: &Arc<Self>) {
        std::mem::forget(Arc::clone(self));
    }
}

impl Eal {
    /// Starts DPDK in this process, opening the devices that the arguments name, and pins the calling thread as the
    /// arguments say. Threads spawned later inherit that: spawn others before. Takes 0.1 s and more.
    ///
    /// # Errors
    /// [`Error::AlreadyInitialized`] at the second call in the life of the process, [`Error::Init`] when EAL refuses.
    pub fn init(arguments: &EalArguments) -> Result<Self, Error> {
        let owned = |text: &String| CString::new(text.as_str()).map_err(|_| Error::ZeroByte(text.clone()));
        let strings = arguments.arguments().iter().map(owned).collect::<Result<Vec<_>, _>>()?;
        let count = c_int::try_from(strings.len())
            .map_err(|_| Error::Init { reason: "too many arguments".to_owned(), arguments: String::new() })?;
        // EAL reorders the array and keeps pointers to the strings: both are leaked, once in the life of the process.
        let mut pointers: Vec<*mut c_char> = strings.into_iter().map(CString::into_raw).collect();
        pointers.push(std::ptr::null_mut());
        let pointers = pointers.leak();
        // SAFETY: `argv` holds `count` writable strings and a null pointer, and all stay valid forever. A second call, also
        // at the same time from another thread, is refused by EAL itself.
        if unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) } < 0 {
            return Err(Self::refused(arguments));
        }
        remove_runtime_directory();
        Ok(Self { core: Arc::new(Core { taken: Mutex::default() }), here: PhantomData })
    }

    fn refused(arguments: &EalArguments) -> Error {
        let errno = crate::errno();
        if u32::try_from(errno) == Ok(dpdk_sys::EALREADY) {
            return Error::AlreadyInitialized;
        }
        remove_runtime_directory();
        Error::Init { reason: crate::text(errno), arguments: arguments.arguments().join(" ") }
    }

    /// Adds a virtual device, as `net_null0` with the driver's arguments.
    ///
    /// # Errors
    /// [`Error::PortTaken`] when there is such a device, [`Error::Call`] when there is no such driver or it refuses.
    pub fn attach_vdev(&self, name: &str, arguments: &str) -> Result<(), Error> {
        let device = c_string(name)?;
        // EAL itself would say that all is well.
        if port_id(&device).is_some() {
            return Err(Error::PortTaken(name.to_owned()));
        }
        let arguments = c_string(arguments)?;
        // SAFETY: EAL is initialised, and copies the three strings.
        let result =
            unsafe { dpdk_sys::rte_eal_hotplug_add(c"vdev".as_ptr(), device.as_ptr(), arguments.as_ptr()) };
        Error::check("rte_eal_hotplug_add", name, result)
    }

    /// The port of a device: `net_tap0`, `0000:03:00.0`. It can be had once, until the [`Port`] is dropped, which
    /// closes it for good.
    ///
    /// # Errors
    /// [`Error::NoPort`], [`Error::PortTaken`].
    pub fn port(&self, device: &str) -> Result<Port, Error> {
        let id = port_id(&c_string(device)?).ok_or_else(|| Error::NoPort(device.to_owned()))?;
        self.port_by_id(id, device)
    }

    pub(crate) fn port_by_id(&self, id: u16, device: &str) -> Result<Port, Error> {
        if !self.core.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(Error::PortTaken(device.to_owned()));
        }
        Ok(Port::new(Arc::clone(&self.core), id, device.to_owned()))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Runs the first job on this thread, the second one on lcore 1, and so on; returns what they returned, in their
    /// order, once all of them have. [`EalOptions::lcores`](crate::EalOptions::lcores) says how many lcores there are.
    ///
    /// # Errors
    /// [`Error::Lcores`], and nothing has run, when there are more jobs than lcores.
    ///
    /// # Panics
    /// When a job does, after all others have returned.
    pub fn run_on_lcores<'a, T: Send>(
        &self,
        mut jobs: Vec<Box<dyn FnOnce() -> T + Send + 'a>>,
    ) -> Result<Vec<T>, Error> {
        // SAFETY: reads a number of EAL's, which is initialised.
        let lcores = unsafe { dpdk_sys::rte_lcore_count() };
        if jobs.len() as u64 > u64::from(lcores) {
            return Err(Error::Lcores { wanted: jobs.len(), lcores });
        }
        let others = jobs.split_off(jobs.len().min(1));
        let mut errands: Vec<Errand<'a, T>> = others.into_iter().map(Errand::new).collect();
        let mut launched = Vec::new();
        let mut refused = Ok(());
        for (errand, lcore) in errands.iter_mut().zip(1u32..) {
            // SAFETY: the lcore exists (counted above; ours are numbered from 0 on) and waits for work. The errand stays
            // where it is until the lcore has been waited for, below, on every way out of this function.
            let result = unsafe {
                dpdk_sys::rte_eal_remote_launch(
                    Some(run_errand::<T>),
                    std::ptr::from_mut(errand).cast(),
                    lcore,
                )
            };
            refused = Error::check("rte_eal_remote_launch", &format!("lcore {lcore}"), result);
            if refused.is_err() {
                break;
            }
            launched.push(lcore);
        }
        let first = match &refused {
            Ok(()) => jobs.into_iter().map(|job| catch_unwind(AssertUnwindSafe(job))).next(),
            Err(_) => None,
        };
        for lcore in launched {
            // SAFETY: the lcore was launched above, and is waited for once.
            unsafe { dpdk_sys::rte_eal_wait_lcore(lcore) };
        }
        refused?;
        let results = first.into_iter().chain(errands.into_iter().filter_map(|errand| errand.result));
        Ok(results.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect())
    }
}

/// A job for another lcore, and what became of it.
struct Errand<'a, T> {
    job: Option<Box<dyn FnOnce() -> T + Send + 'a>>,
    result: Option<Result<T, Box<dyn Any + Send>>>,
}

impl<'a, T> Errand<'a, T> {
    fn new(job: Box<dyn FnOnce() -> T + Send + 'a>) -> Self {
        Errand { job: Some(job), result: None }
    }
}

/// What EAL calls on the lcore.
extern "C" fn run_errand<T>(errand: *mut c_void) -> c_int {
    // SAFETY: the errand of `run_on_lcores`, which leaves it alone until this has returned.
    let errand = unsafe { &mut *errand.cast::<Errand<'_, T>>() };
    errand.result = errand.job.take().map(|job| catch_unwind(AssertUnwindSafe(job)));
    0
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: both read numbers of EAL's.
        let main = unsafe { dpdk_sys::weir_lcore_id() == dpdk_sys::rte_get_main_lcore() };
        // Somebody has taken the last part of it to another thread, where EAL cannot be cleaned up.
        if !main {
            return;
        }
        // SAFETY: on the thread that initialised EAL, once, and nothing made through it is left.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

/// EAL makes a directory for each file prefix, and a prefix is one process here. Without shared configuration and
/// telemetry it stays empty, and EAL would leave it behind. If the user's arguments make EAL put something there, it stays.
fn remove_runtime_directory() {
    // SAFETY: returns a pointer to EAL's static buffer, which holds a string, empty before EAL has made the directory.
    let path = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    let _ = std::fs::remove_dir(OsStr::from_bytes(path.to_bytes()));
}

/// DPDK's number of a device's port.
fn port_id(device: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: reads the string, which ends in a zero byte, and DPDK's list of ports, and writes one number.
    let result = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(device.as_ptr(), &raw mut id) };
    (result == 0).then_some(id)
}

pub(crate) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::ZeroByte(text.to_owned()))
}
