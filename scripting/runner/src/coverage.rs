//! Which lines of the scripts the tests reached.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::snapshot::{Snapshot, Source};
use mlua::{Function, Lua, LuaOptions, StdLib};

/// A script or parser module, and what was executed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Name of the file, as in the configuration.
    pub name: String,
    /// Its lines.
    pub text: Vec<String>,
    /// Lines that can be executed, counted from 1, and whether they were.
    pub lines: BTreeMap<u32, bool>,
}

impl Covered {
    /// How many lines were executed, and how many can be.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.lines.values().filter(|reached| **reached).count(), self.lines.len())
    }
}

/// The lines of the instructions of a text: LuaJIT's own list. The text is compiled as scripts are, inside of a function
/// that begins on its first line; the functions in it are found among its constants.
const LINES: &str = r#"
local util = require("jit.util")
local function visit(proto, lines)
  local info = util.funcinfo(proto)
  for place = 1, info.bytecodes - 1 do
    lines[util.funcinfo(proto, place).currentline or 0] = true
  end
  for constant = -1, -info.gcconsts, -1 do
    local inner = util.funck(proto, constant)
    if type(inner) == "proto" then
      visit(inner, lines)
    end
  end
  return lines
end
return function(text)
  local outer = assert(loadstring("return function(...) " .. text .. "\nend"))
  local found = {}
  for line in pairs(visit(outer(), {})) do
    found[#found + 1] = line
  end
  return found
end
"#;

/// The scripts of a configuration, but not the parser modules that come with weir.
///
/// # Errors
/// Lua cannot be made, or a text does not compile; that of a configuration that was checked does.
pub fn covered(snapshot: &Snapshot, reached: &BTreeSet<(String, u32)>) -> mlua::Result<Vec<Covered>> {
    let libraries = StdLib::JIT | StdLib::PACKAGE | StdLib::STRING;
    let lua = Lua::new_with(libraries, LuaOptions::default())?;
    let lines: Function = lua.load(LINES).eval()?;
    let mut found: BTreeMap<&str, Covered> = BTreeMap::new();
    for (source, _) in snapshot.script_sets.iter().flat_map(scripting::sources) {
        if scripting::builtin_parser(&source.name).is_none() && !found.contains_key(source.name.as_str()) {
            found.insert(&source.name, of_source(&lua, &lines, source, reached)?);
        }
    }
    Ok(found.into_values().collect())
}

fn of_source(
    lua: &Lua,
    lines: &Function,
    source: &Source,
    reached: &BTreeSet<(String, u32)>,
) -> mlua::Result<Covered> {
    let body = script_check::body(&source.text);
    let text: Vec<String> = String::from_utf8_lossy(body).lines().map(str::to_owned).collect();
    let numbers: Vec<u32> = lines.call(lua.create_string(body)?)?;
    let of_line = |number: &u32| {
        let place = usize::try_from(*number).ok().and_then(|number| number.checked_sub(1));
        place.and_then(|place| text.get(place)).is_some_and(|line| says_something(line))
    };
    let lines = numbers.into_iter().filter(of_line);
    let lines = lines.map(|number| (number, reached.contains(&(source.name.clone(), number)))).collect();
    Ok(Covered { name: source.name.clone(), text, lines })
}

/// False for lines that only end something: the return that Lua adds there may be out of reach.
fn says_something(line: &str) -> bool {
    let words = line.split("--").next().unwrap_or_default();
    let bare = words.trim_matches(|c: char| c.is_whitespace() || matches!(c, ')' | '}' | ',' | ';' | '('));
    !matches!(bare, "" | "end" | "else")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::snapshot::ScriptSet;

    #[test]
    fn lines_are_those_that_can_be_executed() {
        let text = "-- comment\nlocal function f(x)\n  if x then\n    return 1\n  else\n    return 2\n  end\nend\n\nlocal t = {\n  a = f(1),\n}\nreturn t";
        let source = Source { name: "a.lua".to_owned(), text: text.as_bytes().to_vec() };
        let set = ScriptSet {
            name: "s".to_owned(),
            request: Some(source),
            response: None,
            pools: vec![],
            pool_groups: vec![],
            parsers: vec![],
        };
        let snapshot = Snapshot { script_sets: vec![set], ..Snapshot::default() };
        let reached =
            BTreeSet::from([("a.lua".to_owned(), 3), ("a.lua".to_owned(), 4), ("b.lua".to_owned(), 6)]);
        let found = covered(&snapshot, &reached).unwrap();
        let lines: Vec<_> = found[0].lines.iter().map(|(line, reached)| (*line, *reached)).collect();
        assert_eq!(lines[..3], [(3, true), (4, true), (6, false)], "{lines:?}");
        assert!(lines.iter().all(|(line, _)| ![1, 5, 7, 9].contains(line)), "{lines:?}");
        assert_eq!(found[0].count().0, 2);
    }
}
