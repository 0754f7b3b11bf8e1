//! DPDK's environment: memory, devices, the main lcore.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use crate::{EalArguments, Error, Port};

/// DPDK, initialised. Dropping it, and whatever was made through it, cleans up: devices are closed, memory is unmapped.
///
/// Not `Send`: it stays on the thread that made it, which is EAL's main lcore from then on.
#[derive(Clone)]
pub struct Eal {
    core: Rc<Core>,
}

/// What pools and ports keep alive.
pub(crate) struct Core {
    /// Ports that a [`Port`] exists for.
    taken: RefCell<BTreeSet<u16>>,
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
        Ok(Self { core: Rc::new(Core { taken: RefCell::default() }) })
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
        if !self.core.taken.borrow_mut().insert(id) {
            return Err(Error::PortTaken(device.to_owned()));
        }
        Ok(Port::new(self.clone(), id, device.to_owned()))
    }

    /// The port is about to be closed; `false` when it has been already.
    pub(crate) fn forget_port(&self, id: u16) -> bool {
        self.core.taken.borrow_mut().remove(&id)
    }

    /// EAL is never to be cleaned up: something may still use its memory.
    pub(crate) fn keep_forever(&self) {
        std::mem::forget(Rc::clone(&self.core));
    }

    /// EAL's number of the calling thread; the main lcore is 0 with the arguments of [`EalArguments`].
    #[must_use]
    pub fn lcore(&self) -> u32 {
        // SAFETY: reads a thread-local variable.
        unsafe { dpdk_sys::weir_lcore_id() }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: on the thread that initialised EAL (`Core` is not Send), once, and nothing made through it is left.
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
