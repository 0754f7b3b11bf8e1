//! Integers, times and sizes with bounds.

use dataplane::steering::MOST_WORKERS;
use smoltcp::time::Duration;
use toml::de::DeValue;

use super::{integer, string};
use crate::process::Workers;
use crate::read::{Fault, Value};

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    /// A default; clamped to the bounds.
    pub(crate) fn new(value: i64) -> Self {
        Int(value.clamp(MIN, MAX))
    }

    /// As the type of the core. The bounds of each key fit its type; where they did not, the type's largest value.
    pub(crate) fn into_type<T: TryFrom<i64> + Bound>(self) -> T {
        T::try_from(self.0).unwrap_or(T::LARGEST)
    }
}

/// The largest value of an integer type.
pub(crate) trait Bound {
    const LARGEST: Self;
}

impl Bound for u8 {
    const LARGEST: u8 = u8::MAX;
}

impl Bound for u16 {
    const LARGEST: u16 = u16::MAX;
}

impl Bound for u32 {
    const LARGEST: u32 = u32::MAX;
}

impl<const MIN: i64, const MAX: i64> Value for Int<MIN, MAX> {
    fn expected() -> String {
        format!("an integer from {MIN} to {MAX}")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        match integer(value)? {
            Some(n) if n < MIN => Err(Fault::value(format!("{n} is too small"))),
            Some(n) if n <= MAX => Ok(Int(n)),
            Some(n) => Err(Fault::value(format!("{n} is too large"))),
            None => Err(Fault::value("does not fit 64 bits")),
        }
    }
}

impl Value for Workers {
    fn expected() -> String {
        format!("an integer from 1 to {MOST_WORKERS}, or \"auto\"")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        if value.as_str() == Some("auto") {
            return Ok(Workers::Auto);
        }
        let count = Int::<1, { MOST_WORKERS as i64 }>::read(value)?;
        Ok(Workers::Count(count.into_type()))
    }
}

/// A millisecond in microseconds.
pub(crate) const MS: u64 = 1_000;
/// A second in microseconds.
pub(crate) const S: u64 = 1_000 * MS;
/// An hour in microseconds.
pub(crate) const H: u64 = 3_600 * S;

const TIME_UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", MS), ("s", S), ("m", 60 * S), ("h", H), ("d", 24 * H)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A time from `MIN` to `MAX` microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Time<MIN, MAX> {
    /// A default, in microseconds; clamped to the bounds.
    pub(crate) fn new(micros: u64) -> Self {
        Time(micros.clamp(MIN, MAX))
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> Value for Time<MIN, MAX> {
    fn expected() -> String {
        let (min, max) = (with_unit(MIN, &TIME_UNITS), with_unit(MAX, &TIME_UNITS));
        format!("a time from \"{min}\" to \"{max}\", with a unit: us, ms, s, m, h or d")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        if let Some(digits) = value.as_integer().map(|n| n.as_str().to_owned()) {
            let help = format!("write \"{digits}s\" for seconds, \"{digits}ms\" for milliseconds");
            return Err(Fault::hint("a time needs a unit", help));
        }
        let micros = quantity(string(value)?, &TIME_UNITS)?;
        bounded(micros, MIN, MAX, &TIME_UNITS).map(Time)
    }
}

/// A size from `MIN` to `MAX` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// A default, in bytes; clamped to the bounds.
    pub(crate) fn new(bytes: u64) -> Self {
        Size(bytes.clamp(MIN, MAX))
    }

    pub(crate) fn bytes(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// For bounds beyond `u32`.
    pub(crate) fn many_bytes(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    fn expected() -> String {
        let (min, max) = (with_unit(MIN, &SIZE_UNITS), with_unit(MAX, &SIZE_UNITS));
        format!("a size from \"{min}\" to \"{max}\", as bytes or with a unit: B, KiB, MiB or GiB")
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let bytes = if value.is_integer() {
            let bytes = integer(value)?.and_then(|n| u64::try_from(n).ok());
            bytes.ok_or_else(|| Fault::value("this is not a size"))?
        } else {
            quantity(string(value)?, &SIZE_UNITS)?
        };
        bounded(bytes, MIN, MAX, &SIZE_UNITS).map(Size)
    }
}

/// A number and a unit, multiplied.
fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, Fault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        if digits > 0 {
            return Err(Fault::value(format!("\"{text}\" is too large")));
        }
        return Err(Fault::value(format!("\"{text}\" does not start with a whole number")));
    };
    let unit = unit.trim_start();
    if let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) {
        return number.checked_mul(*factor).ok_or_else(|| Fault::value(format!("\"{text}\" is too large")));
    }
    let what =
        if unit.is_empty() { format!("\"{text}\" has no unit") } else { format!("\"{unit}\" is not a unit") };
    let meant = units.iter().find(|(name, _)| same_unit(name, unit));
    Err(match meant {
        Some((name, _)) => Fault::hint(what, format!("did you mean \"{number}{name}\"?")),
        None => Fault::value(what),
    })
}

/// True if `written` is another common spelling of `unit`.
fn same_unit(unit: &str, written: &str) -> bool {
    let spellings: &[&str] = match unit {
        "us" => &["µs", "usec"],
        "ms" => &["msec", "millis"],
        "s" => &["sec", "secs", "second", "seconds"],
        "m" => &["min", "mins", "minute", "minutes"],
        "h" => &["hour", "hours"],
        "d" => &["day", "days"],
        "B" => &["bytes", "byte"],
        "KiB" => &["k", "kb", "kib", "ki"],
        "MiB" => &["m", "mb", "mib", "mi"],
        "GiB" => &["g", "gb", "gib", "gi"],
        _ => &[],
    };
    spellings.contains(&written.to_lowercase().as_str())
}

fn bounded(value: u64, min: u64, max: u64, units: &[(&str, u64)]) -> Result<u64, Fault> {
    if value < min {
        return Err(Fault::value(format!("{} is too small", with_unit(value, units))));
    }
    if value > max {
        return Err(Fault::value(format!("{} is too large", with_unit(value, units))));
    }
    Ok(value)
}

/// In the largest unit that divides the value.
fn with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |factor: u64| value != 0 && value.checked_rem(factor) == Some(0);
    let largest = units.iter().rev().find(|(_, factor)| fits(*factor));
    match largest {
        Some((unit, factor)) => format!("{}{unit}", value.checked_div(*factor).unwrap_or(0)),
        None => "0".to_owned(),
    }
}

/// A time as one would write it in the file.
pub(crate) fn time_text(time: Duration) -> String {
    with_unit(time.total_micros(), &TIME_UNITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    type AnyTime = Time<1, { 24 * H }>;
    type AnySize = Size<1, { 1 << 32 }>;

    fn time(text: &str) -> Option<u64> {
        AnyTime::read(&DeValue::String(text.into())).ok().map(|t| t.duration().total_micros())
    }

    fn size(text: &str) -> Option<u64> {
        AnySize::read(&DeValue::String(text.into())).ok().map(|s| s.0)
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(time("500ms"), Some(500_000));
        assert_eq!(time("30 s"), Some(30_000_000));
        assert_eq!(time("5m"), Some(300_000_000));
        assert_eq!(time("250us"), Some(250));
        for wrong in [
            "",
            "0s",
            "5",
            "s",
            "-1s",
            "1.5s",
            "2d",
            "5 sec",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(size("64KiB"), Some(65536));
        assert_eq!(size("16 MiB"), Some(16 << 20));
        assert_eq!(size("100B"), Some(100));
        for wrong in ["64", "64KB", "0B", "5GiB", "x"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert!(matches!(AnySize::read(&DeValue::Boolean(true)), Err(Fault::Type)));
    }

    #[test]
    fn a_quantity_is_shown_in_its_largest_unit() {
        assert_eq!(time_text(Duration::from_secs(300)), "5m");
        assert_eq!(time_text(Duration::from_millis(1500)), "1500ms");
        assert_eq!(time_text(Duration::ZERO), "0");
    }
}
