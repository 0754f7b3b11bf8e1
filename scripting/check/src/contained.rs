//! Which scripts are contained: they change nothing but values of their own, so that runs of them need no world each. And which
//! of those are straight: they take each of their steps at most once, so that nothing need look at the clock while their own
//! code runs.

use crate::api::{self, SIGNIFICANT, VARIABLES, in_library};
use crate::lower;
use crate::source::{body, parseable};
use crate::tree::{Block, Body, Call, Expr, Node, Span, Statement};

/// Most statements, expressions and names in a straight script. One takes one or two instructions of LuaJIT, so that all of
/// them are fewer than there are between two looks at the clock in any other script.
const STEPS: usize = 400;

/// Longest text that is looked at, in bytes.
const BYTES: usize = 65536;

/// Functions of no library that straight scripts may call.
const BASE: &[&str] = &["assert", "error", "pcall", "tonumber", "tostring", "type"];

/// Those that other contained scripts may call, too.
const MORE: &[&str] = &[
    "getmetatable",
    "ipairs",
    "next",
    "pairs",
    "print",
    "rawequal",
    "rawget",
    "rawset",
    "select",
    "setmetatable",
    "unpack",
    "xpcall",
];

/// Libraries of which straight scripts may call everything. None of that writes to a table that was there before.
const LIBRARIES: &[&str] = &["bit", "math", "os", "string"];

/// What a contained script asks of the world around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contained {
    /// It may look up a field of a string: `text:sub(1, 2)`, or a metatable of its own whose `__index` is a string does.
    pub indexes: bool,
    /// It has no loop, no jump and no function of its own, and not too many steps.
    pub straight: bool,
}

/// Whether a script is contained, as far as that can be told from its text: it neither writes to nor hands on the tables that
/// it finds, its environment among them, and calls nothing that would see who has called it. Values that it makes are its own:
/// it may do with them what it likes.
///
/// `None` for everything else, and for texts that are spelled in a way in which LuaJIT and the parser of the checks may
/// differ.
#[must_use]
pub fn contained(text: &[u8]) -> Option<Contained> {
    contained_calls(text).map(|(contained, _)| contained)
}

/// As [`contained`], with where the script names functions of `avi` outside of functions of its own: bytes of its
/// [`body`], in order.
#[must_use]
pub fn contained_calls(text: &[u8]) -> Option<(Contained, Vec<Span>)> {
    if text.len() > BYTES || !is_plainly_spelled(body(text)) {
        return None;
    }
    let tree = lower::tree(&parseable(text)).ok()?;
    let mut walk = Walk { steps: 0, again: false, indexes: false, depth: 0, functions: Vec::new() };
    if !walk.block(&tree.block) {
        return None;
    }
    let straight = !walk.again && walk.steps <= STEPS;
    walk.functions.sort_by_key(|span| span.start);
    Some((Contained { indexes: walk.indexes, straight }, walk.functions))
}

/// ASCII without control characters, line ends of one or two bytes, and no escapes but those that all Luas have.
fn is_plainly_spelled(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'\n' | b'\t' | b' '..=b'[' | b']'..=b'~' => true,
            b'\r' => bytes.next() == Some(&b'\n'),
            b'\\' => matches!(
                bytes.next(),
                Some(b'a'..=b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\' | b'"' | b'\'' | b'0'..=b'9')
            ),
            _ => false,
        };
        if !fine {
            return false;
        }
    }
    true
}

struct Walk {
    /// Statements, expressions and names.
    steps: usize,
    /// Some of them may be taken more than once.
    again: bool,
    indexes: bool,
    /// Functions around what is looked at.
    depth: usize,
    /// Where functions of `avi` are named, outside of functions of the script.
    functions: Vec<Span>,
}

impl Walk {
    fn block(&mut self, block: &Block) -> bool {
        block.iter().all(|statement| self.statement(statement))
    }

    fn step(&mut self, steps: usize) -> bool {
        self.steps += steps;
        true
    }

    /// Something that may make a step happen more than once.
    fn again(&mut self) -> bool {
        self.again = true;
        true
    }

    fn statement(&mut self, statement: &Statement) -> bool {
        self.step(1)
            && match statement {
                Statement::Local { locals, values } => self.step(locals.len()) && self.values(values),
                Statement::Assign { targets, values } => {
                    targets.iter().all(|target| self.target(target)) && self.values(values)
                }
                Statement::Call(call) => self.value(call),
                Statement::Do(block) => self.block(block),
                Statement::If { arms, otherwise } => {
                    arms.iter().all(|(condition, block)| self.value(condition) && self.block(block))
                        && otherwise.as_ref().is_none_or(|block| self.block(block))
                }
                // A call in its place would end the frame of the script, which tells where an error is.
                Statement::Return(values) => {
                    let is_call = matches!(values.as_slice(), [Expr { node: Node::Call(_), .. }]);
                    (self.depth > 0 || !is_call) && self.values(values)
                }
                Statement::While { condition, block } | Statement::Repeat { block, until: condition } => {
                    self.again() && self.value(condition) && self.block(block)
                }
                Statement::For { values, block, .. } => {
                    self.again() && self.values(values) && self.block(block)
                }
                Statement::Function { target, body } => self.target(target) && self.function(body),
                Statement::LocalFunction { body, .. } => self.function(body),
                Statement::Break | Statement::Jump => self.again(),
            }
    }

    fn function(&mut self, function: &Body) -> bool {
        self.depth += 1;
        let contained = self.again() && self.block(&function.block);
        self.depth -= 1;
        contained
    }

    /// Something that may be written to: a variable of the script, a field of a value of its own, a variable of the flow.
    fn target(&mut self, target: &Expr) -> bool {
        match &target.node {
            Node::Local(_) => self.step(1),
            Node::Index(base, key) => match path(target) {
                Some(path) => is_variable(&path) && self.step(4),
                None => self.step(1) && self.value(base) && self.value(key),
            },
            _ => false,
        }
    }

    fn values(&mut self, values: &[Expr]) -> bool {
        values.iter().all(|value| self.value(value))
    }

    fn value(&mut self, expr: &Expr) -> bool {
        self.step(1)
            && match &expr.node {
                Node::Nil | Node::Boolean(_) | Node::Number(Some(_)) | Node::Text(_) | Node::Local(_) => true,
                Node::Index(base, key) => self.field(expr, base, key),
                Node::Call(call) => self.call(call),
                Node::Binary(_, left, right) => self.value(left) && self.value(right),
                Node::Unary(_, inner) | Node::Parentheses(inner) => self.value(inner),
                Node::Table(fields) => fields
                    .iter()
                    .all(|(key, value)| key.as_ref().is_none_or(|key| self.value(key)) && self.value(value)),
                Node::Function(body) => self.function(body),
                // What is too deep to be looked at is taken for `...`.
                Node::Number(None) | Node::Vararg | Node::Global(_) => false,
            }
    }

    /// A field: of the API or a library if its name says so, else of a value of the script, which may be a string.
    fn field(&mut self, whole: &Expr, base: &Expr, key: &Expr) -> bool {
        if let Some(path) = path(whole).filter(|path| is_known(path)) {
            if self.depth == 0 && api::function(&path).is_some() {
                self.functions.push(whole.span.clone());
            }
            let again = path.starts_with("table.") && path != "table.concat";
            return self.step(2) && (!again || self.again());
        }
        self.indexes = true;
        self.value(base) && self.value(key)
    }

    fn call(&mut self, call: &Call) -> bool {
        let callee = match &call.callee.node {
            // With a second argument `error` tells the place of the caller.
            Node::Global(name) if name == "error" && call.method.is_none() => {
                matches!(call.arguments.as_slice(), [only] if !only.is_many())
            }
            Node::Global(name) if call.method.is_none() => {
                let name = name.as_str();
                BASE.contains(&name) || MORE.contains(&name) && self.again()
            }
            _ => self.value(&call.callee),
        };
        let is_metatable_set = matches!(&call.callee.node, Node::Global(name) if name == "setmetatable");
        self.indexes |= call.method.is_some() || is_metatable_set;
        callee && self.values(&call.arguments)
    }
}

/// The names of a field from the global on, with dots between them; `None` where there are others than plain names.
fn path(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Global(name) => Some(name.clone()),
        Node::Index(base, key) => match &key.node {
            Node::Text(Some(name)) if !name.contains('.') => Some(format!("{}.{name}", path(base)?)),
            _ => None,
        },
        _ => None,
    }
}

fn is_known(path: &str) -> bool {
    let in_known_library = || {
        let (library, member) = path.split_once('.')?;
        let all = LIBRARIES.contains(&library) || library == "table";
        all.then(|| in_library(library, member)).flatten()
    };
    path == SIGNIFICANT
        || is_variable(path)
        || api::function(path).is_some()
        || in_known_library() == Some(true)
}

/// `avi.vs.reqvar.NAME`
fn is_variable(path: &str) -> bool {
    let name = path.strip_prefix(VARIABLES).and_then(|rest| rest.strip_prefix('.'));
    name.is_some_and(|name| !name.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn straight(indexes: bool) -> Option<Contained> {
        Some(Contained { indexes, straight: true })
    }

    #[test]
    fn short_decisions_are_straight() {
        for (script, indexes) in [
            ("", false),
            ("avi.pool.select('main')", false),
            (
                "if avi.vs.port() == '53' then\r\n  avi.pool.select(\"a\\n\")\r\nelse avi.vs.log(1, 'x' .. 2) end",
                false,
            ),
            (
                "avi.l4.collect(5)\nlocal n = #avi.l4.read(2)\nif n > 2 and not (n == 5) then return end",
                false,
            ),
            ("local ok, text = pcall(avi.pool.select, 'x') if not ok then error(text) end", false),
            (
                "local log = avi.vs.log log(avi.SIG_ENABLE) do log(tostring(math.floor(2.5))) end return 1, 2",
                false,
            ),
            ("avi.vs.reqvar.n = 1 avi.vs.log(avi.vs.reqvar.n)", false),
            ("avi.vs.reqvar.n = (avi.vs.reqvar.n or '').x", true),
            ("avi.vs.log(avi.l4.read():sub(1, 2))", true),
            ("local t = { a = 'b', 'c' } t.x = 1 avi.vs.log(t[avi.vs.port()])", true),
            ("avi.vs.log(table.concat({ string.byte('abc', 1, 3) }))", false),
            ("-- while true do end\n--[[ f() ]] avi.vs.log([[while]])", false),
        ] {
            assert_eq!(contained(script.as_bytes()), straight(indexes), "{script}");
        }
        assert_eq!(contained("avi.vs.log(1) ".repeat(50).as_bytes()), straight(false));
    }

    #[test]
    fn functions_of_the_api_are_found_where_the_script_itself_names_them() {
        let script = "\u{feff}local log = avi.vs.log\r\nlog(avi . vs.port(), avi.SIG_ENABLE, string.len('avi.vs.ip'))\n\
            avi.vs.reqvar.x = avi.vs.ip() ; local f = function() return avi.vs.name() end\n\
            do local avi = {} log(avi.vs) end";
        let (_, found) = contained_calls(script.as_bytes()).unwrap();
        let text = std::str::from_utf8(body(script.as_bytes())).unwrap();
        let found: Vec<&str> = found.into_iter().map(|span| &text[span]).collect();
        assert_eq!(found, ["avi.vs.log", "avi . vs.port", "avi.vs.ip"]);
    }

    #[test]
    fn what_may_run_long_is_contained_and_not_straight() {
        for script in [
            "while true do end".to_owned(),
            "repeat until false".to_owned(),
            "for i = 1, 9 do break end".to_owned(),
            "for k in pairs({}) do end".to_owned(),
            "::again:: goto again".to_owned(),
            "local function f() return f() end".to_owned(),
            "local f = function() end".to_owned(),
            "local M = {} function M.f() end".to_owned(),
            "setmetatable({}, {})".to_owned(),
            "rawset({}, 1, 1)".to_owned(),
            "table.insert({}, 1)".to_owned(),
            "table.sort({})".to_owned(),
            "print(1)".to_owned(),
            "avi.vs.log(1) ".repeat(100),
            format!("avi.vs.log({}1)", "1 + ".repeat(150)) + &"avi.vs.log(1) ".repeat(50),
        ] {
            let found = contained(script.as_bytes());
            assert!(matches!(found, Some(Contained { straight: false, .. })), "{script}: {found:?}");
        }
    }

    #[test]
    fn a_metatable_may_look_up_fields_of_strings() {
        for (script, indexes) in [
            ("setmetatable({}, { __index = '' })", true),
            ("string.gsub('x', '%w', setmetatable({}, { __index = '' }))", true),
            ("local f = function() return 1, setmetatable({}, {}) end", true),
            ("string.gsub('x', '%w', { x = 'y' })", false),
            ("avi.vs.log(getmetatable(''))", false),
            ("for i = 1, 2 do avi.vs.log(select(i, 'a', 'b')) end", false),
        ] {
            let found = contained(script.as_bytes());
            assert_eq!(found.map(|found| found.indexes), Some(indexes), "{script}");
        }
    }

    #[test]
    fn what_may_leave_something_is_not_contained() {
        for script in [
            "function f() end",
            "function string.f() end",
            "local f = function() x = 1 end",
            "for i = 1, 9 do x = i end",
            "while x do end",
            "repeat local a until _G",
            "local t = { _G }",
            "local t = { [string] = 1 }",
            "x = 1",
            "avi = 1",
            "string.x = 1",
            "avi.vs.x = 1",
            "avi.vs.reqvar = 1",
            "local a = avi a.x = 1",
            "local v = avi.vs",
            "avi.vs['lo' .. 'g'] = 1",
            "avi.vs['reqvar.x'] = 1",
            "local s = string",
            "string['x'] = 1",
            "local g = _G",
            "local r = avi.vs.reqvar",
            "rawset(string, 1, 1)",
            "table.insert(table, 1)",
            "setmetatable({}, { __index = string })",
            "setmetatable({}, { __newindex = avi.vs })",
            "for k in pairs(string) do end",
            "local get = rawget",
            "require('m')",
            "f()",
            "avi.vs.nosuch()",
            "avi.ssl.x()",
            "avi.l4.send('x')",
            "string.nosuch()",
            "error('x', 2)",
            "error(avi.vs.table_lookup('x'))",
            "error()",
            "local e = error",
            "pcall(error, 'x', 2)",
            "return avi.pool.select('x')",
            "avi.vs.log(...)",
            "local f = function(...) return ... end",
            "avi.vs.log(1LL)",
            "local x = ",
        ] {
            assert_eq!(contained(script.as_bytes()), None, "{script}");
        }
        let deep = format!("avi.vs.log({}x{})", "(".repeat(300), ")".repeat(300));
        assert_eq!(contained(deep.as_bytes()), None);
    }

    #[test]
    fn texts_that_two_parsers_may_read_differently_are_not_contained() {
        for script in [
            &b"-- a comment\rwhile true do end"[..],
            b"-- a comment\r",
            b"avi.vs.log('\\z  x')",
            b"avi.vs.log('\\x41')",
            b"avi.vs.log('\\\nx')",
            b"avi.vs.log('\\u{41}')",
            b"avi.vs.log(1)\x00",
            b"avi.vs.log(1)\x0b",
            b"avi.vs.log('\xc3\xa4')",
            b"avi\xc2\xa0.vs.log(1)",
        ] {
            assert_eq!(contained(script), None, "{}", String::from_utf8_lossy(script));
        }
        assert_eq!(contained(b"\xef\xbb\xbfavi.vs.log(1)\r\n"), straight(false));
    }
}
