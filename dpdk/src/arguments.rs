//! EAL's command line, from what the user configured and what the machine has.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::Error;

/// A network device as users write it: the device, then optionally a comma and its driver's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A virtual device, by the name of its driver and a number: `net_tap0,iface=weir0`.
    Virtual {
        /// `net_tap0`
        name: String,
        /// `iface=weir0`, or nothing.
        arguments: String,
    },
    /// A device on the PCI bus: `0000:03:00.0`, also without the domain.
    Pci {
        /// `0000:03:00.0`
        address: String,
        /// The driver's arguments, or nothing.
        arguments: String,
    },
}

impl Device {
    /// Reads the user's text.
    ///
    /// # Errors
    /// [`Error::Device`] for text that is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
        let arguments = arguments.to_owned();
        let graphic = text.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(address) = pci_address(name).filter(|_| graphic) {
            return Ok(Device::Pci { address, arguments });
        }
        let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if graphic && word && name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Ok(Device::Virtual { name: name.to_owned(), arguments });
        }
        Err(Error::Device(text.to_owned()))
    }

    /// The name by which [`crate::Eal::port`] finds the port.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Device::Virtual { name, .. } => name,
            Device::Pci { address, .. } => address,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Device::Virtual { name, arguments } | Device::Pci { address: name, arguments }) = self;
        if arguments.is_empty() { f.write_str(name) } else { write!(f, "{name},{arguments}") }
    }
}

/// `DDDD:BB:DD.F` or `BB:DD.F`, in hexadecimal, as the first form in lower case.
fn pci_address(text: &str) -> Option<String> {
    let hex = |field: &str, digits: usize| {
        field.len() == digits && field.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let (front, function) = text.split_once('.')?;
    let fields: Vec<&str> = front.split(':').collect();
    let (domain, bus, device) = match fields.as_slice() {
        [bus, device] => ("0000", *bus, *device),
        [domain, bus, device] => (*domain, *bus, *device),
        _ => return None,
    };
    let valid = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1);
    valid.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

/// Whether EAL may take huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// If enough of them are free.
    #[default]
    IfFree,
    /// Not even then.
    Never,
}

/// What the user may decide about EAL.
#[derive(Clone, Debug)]
pub struct EalOptions {
    /// The devices to open.
    pub devices: Vec<Device>,
    /// How many lcores there are to be, the calling thread among them.
    pub lcores: u8,
    /// The processors that lcores are pinned to, in turn. Empty: each to one of those that the calling thread may use; one
    /// lcore alone keeps that thread's affinity.
    pub cpus: Vec<u32>,
    /// Memory for packet buffers, MiB. Without huge pages this much is mapped at once; with them it is what has to be free.
    pub memory_mib: u32,
    /// Huge pages or not.
    pub huge_pages: HugePages,
    /// Further arguments for EAL, after ours: where both say something, these win.
    pub extra: Vec<String>,
}

impl Default for EalOptions {
    /// No device, one lcore without pinning, 128 MiB, huge pages if free.
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            lcores: 1,
            cpus: Vec::new(),
            memory_mib: 128,
            huge_pages: HugePages::IfFree,
            extra: Vec::new(),
        }
    }
}

/// What the arguments depend on beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Huge pages of all sizes that are free, MiB.
    pub free_huge_mib: u64,
    /// The processors that the calling thread may run on, as the kernel writes them: `0-3,8`.
    pub allowed_cpus: String,
    /// A number that no other process has now.
    pub process: u32,
}

impl Machine {
    /// Reads it from the kernel.
    #[must_use]
    pub fn read() -> Self {
        Self { free_huge_mib: free_huge_mib(), allowed_cpus: allowed_cpus(), process: std::process::id() }
    }

    /// The processors that the calling thread may run on, one by one.
    #[must_use]
    pub fn cpus(&self) -> Vec<u32> {
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
        };
        self.allowed_cpus.split(',').filter_map(range).flatten().collect()
    }
}

/// EAL's command line, and what the operator has to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalArguments {
    arguments: Vec<String>,
    warning: Option<String>,
}

impl EalArguments {
    /// The command line for this machine.
    #[must_use]
    pub fn new(options: &EalOptions) -> Self {
        Self::on(&Machine::read(), options)
    }

    /// The command line for a given machine.
    #[must_use]
    pub fn on(machine: &Machine, options: &EalOptions) -> Self {
        let mut arguments = vec!["weir".to_owned(), format!("--lcores={}", lcores(machine, options))];
        let enough = machine.free_huge_mib >= u64::from(options.memory_mib);
        let huge = enough && options.huge_pages == HugePages::IfFree;
        if huge {
            arguments.push("--in-memory".to_owned());
        } else {
            arguments.extend(["--no-huge".to_owned(), "-m".to_owned(), options.memory_mib.to_string()]);
            arguments.push("--no-shconf".to_owned());
        }
        arguments.extend(["--no-telemetry", "--iova-mode=va", "--log-level=error"].map(str::to_owned));
        arguments.push(format!("--file-prefix=weir-{}", machine.process));
        if !options.devices.iter().any(|device| matches!(device, Device::Pci { .. })) {
            arguments.push("--no-pci".to_owned());
        }
        arguments.extend(options.devices.iter().map(|device| match device {
            Device::Virtual { .. } => format!("--vdev={device}"),
            Device::Pci { .. } => format!("--allow={device}"),
        }));
        arguments.extend(options.extra.iter().cloned());
        let warn = !huge && options.huge_pages == HugePages::IfFree;
        Self { arguments, warning: warn.then(|| warning(machine, options)) }
    }

    /// The arguments, the name of the program first.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// One line for the operator when there are no huge pages, or too few.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// Numbers of lcores and their processors; the first one is the calling thread. A group in parentheses is an affinity.
fn lcores(machine: &Machine, options: &EalOptions) -> String {
    if options.lcores <= 1 && options.cpus.is_empty() {
        return format!("0@({})", machine.allowed_cpus);
    }
    let allowed = machine.cpus();
    let cpus = if options.cpus.is_empty() { &allowed } else { &options.cpus };
    let pinned = (0..options.lcores.max(1)).zip(cpus.iter().cycle());
    pinned.map(|(lcore, cpu)| format!("{lcore}@({cpu})")).collect::<Vec<_>>().join(",")
}

fn warning(machine: &Machine, options: &EalOptions) -> String {
    format!(
        "running without huge pages: {} MiB of them are free and {} MiB are needed; \
         forwarding is slower this way (sysctl vm.nr_hugepages={} reserves enough pages of 2 MiB)",
        machine.free_huge_mib,
        options.memory_mib,
        options.memory_mib.div_ceil(2)
    )
}

fn free_huge_mib() -> u64 {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    sizes.flatten().filter_map(|size| free_kib(&size.path())).sum::<u64>() / 1024
}

/// Free memory in the pool at a path such as `hugepages-2048kB`.
fn free_kib(pool: &Path) -> Option<u64> {
    let page: u64 =
        pool.file_name()?.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let free: u64 = fs::read_to_string(pool.join("free_hugepages")).ok()?.trim().parse().ok()?;
    page.checked_mul(free)
}

fn allowed_cpus() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.map_or_else(|| "0".to_owned(), |list| list.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(free_huge_mib: u64) -> Machine {
        Machine { free_huge_mib, allowed_cpus: "0-3,8".to_owned(), process: 77 }
    }

    fn options(devices: &[&str]) -> EalOptions {
        let devices = devices.iter().map(|text| Device::parse(text).unwrap()).collect();
        EalOptions { devices, ..EalOptions::default() }
    }

    #[test]
    fn devices_as_users_write_them() {
        let tap = Device::parse("net_tap0,iface=weir0,mac=fixed").unwrap();
        assert_eq!(tap.name(), "net_tap0");
        assert_eq!(tap.to_string(), "net_tap0,iface=weir0,mac=fixed");
        let card = Device::parse("3B:00.1").unwrap();
        assert_eq!(card, Device::Pci { address: "0000:3b:00.1".to_owned(), arguments: String::new() });
        assert_eq!(Device::parse("0000:03:00.0,a=1").unwrap().to_string(), "0000:03:00.0,a=1");
        for wrong in [
            "",
            ",iface=x",
            "net tap",
            "net_tap0,iface=a b",
            "0000:03:00",
            "00:03:00.0",
            "-v",
            "1net",
            "net_ü",
        ] {
            assert!(matches!(Device::parse(wrong), Err(Error::Device(text)) if text == wrong), "{wrong:?}");
        }
    }

    #[test]
    fn huge_pages_when_enough_are_free() {
        let built = EalArguments::on(&machine(128), &options(&["net_null0"]));
        let expected = "weir --lcores=0@(0-3,8) --in-memory --no-telemetry --iova-mode=va --log-level=error \
                        --file-prefix=weir-77 --no-pci --vdev=net_null0";
        assert_eq!(built.arguments().join(" "), expected);
        assert_eq!(built.warning(), None);
    }

    #[test]
    fn without_huge_pages_one_warning() {
        let built = EalArguments::on(&machine(127), &options(&[]));
        assert!(built.arguments().join(" ").contains(" --no-huge -m 128 --no-shconf "), "{built:?}");
        let warning = built.warning().unwrap();
        assert!(warning.contains("127 MiB") && warning.contains("vm.nr_hugepages=64"), "{warning}");
        assert_eq!(warning.lines().count(), 1);
        let never = EalOptions { huge_pages: HugePages::Never, ..options(&[]) };
        let built = EalArguments::on(&machine(4096), &never);
        assert!(built.arguments().iter().any(|argument| argument == "--no-huge"));
        assert_eq!(built.warning(), None);
    }

    #[test]
    fn pci_devices_pinning_and_what_the_user_adds() {
        let mut options = options(&["0000:03:00.0,a=1", "net_ring0"]);
        options.cpus = vec![5];
        options.extra = vec!["--log-level=debug".to_owned()];
        let built = EalArguments::on(&machine(0), &options);
        let line = built.arguments().join(" ");
        assert!(line.contains("--lcores=0@(5) "), "{line}");
        assert!(line.ends_with("--allow=0000:03:00.0,a=1 --vdev=net_ring0 --log-level=debug"), "{line}");
        assert!(!line.contains("--no-pci"), "{line}");
    }

    #[test]
    fn each_lcore_gets_a_processor() {
        let line = |lcores, cpus: &[u32]| {
            let options = EalOptions { lcores, cpus: cpus.to_vec(), ..options(&[]) };
            EalArguments::on(&machine(0), &options).arguments()[1].clone()
        };
        assert_eq!(machine(0).cpus(), [0, 1, 2, 3, 8]);
        assert_eq!(line(3, &[]), "--lcores=0@(0),1@(1),2@(2)");
        assert_eq!(line(2, &[8, 3]), "--lcores=0@(8),1@(3)");
        assert_eq!(line(3, &[2]), "--lcores=0@(2),1@(2),2@(2)");
        assert_eq!(line(7, &[]), "--lcores=0@(0),1@(1),2@(2),3@(3),4@(8),5@(0),6@(1)");
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read();
        assert_eq!(machine.process, std::process::id());
        assert!(
            machine.allowed_cpus.bytes().all(|byte| byte.is_ascii_digit() || b"-,".contains(&byte)),
            "{machine:?}"
        );
        assert!(!machine.allowed_cpus.is_empty());
    }
}
