//! The protocol parser modules that published scripts `require`.

/// The Lua text of a parser module that comes with weir: `Default-TLS`, `Default-Radius` or `Default-DHCP`.
#[must_use]
pub fn builtin_parser(name: &str) -> Option<&'static str> {
    match name {
        "Default-TLS" => Some(include_str!("../parsers/tls.lua")),
        "Default-Radius" => Some(include_str!("../parsers/radius.lua")),
        "Default-DHCP" => Some(include_str!("../parsers/dhcp.lua")),
        _ => None,
    }
}
