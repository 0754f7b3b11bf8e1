//! Numbers as Lua writes them (`%.14g`), without asking Lua: its own conversion allocates and may raise.

/// Appends the text of `number`.
pub(crate) fn write(number: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(text(number).as_bytes());
}

/// The text of `number`: `1812`, `0.5`, `1e+20`, `inf`, `nan`.
pub(crate) fn text(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    if let Some(whole) = whole(number) {
        return whole.to_string();
    }
    let scientific = format!("{number:.13e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..14).contains(&exponent) {
        let decimals = usize::try_from(13 - exponent).unwrap_or(0);
        return without_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.unsigned_abs())
}

/// A whole number of up to 14 digits, which is what most are.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn whole(number: f64) -> Option<i64> {
    let whole = number as i64;
    let exact = whole as f64 == number && whole.unsigned_abs() < 100_000_000_000_000;
    (exact && (whole != 0 || number.is_sign_positive())).then_some(whole)
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn numbers_read_as_lua_writes_them() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (1812.0, "1812"),
            (-3.25, "-3.25"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.33333333333333"),
            (99_999_999_999_999.0, "99999999999999"),
            (1e14, "1e+14"),
            (123_456_789_012_345.0, "1.2345678901234e+14"),
            (1e-5, "1e-05"),
            (0.000_1, "0.0001"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (number, expected) in cases {
            assert_eq!(text(*number), *expected, "{number:e}");
        }
    }
}
