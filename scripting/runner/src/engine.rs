//! The Lua in which a test file runs: a state of its own for each file, apart from that of the scripts.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{FromLuaMulti, Function, HookTriggers, IntoLua, Lua, LuaOptions, StdLib, Table, Value, VmState};
use script_check::nearest;

use crate::outcome::{Facts, Problem};
use crate::show;
use crate::world::World;

const PRELUDE: &str = include_str!("prelude.lua");
/// Instructions of a test file between two looks at how many are left.
const STEP: u32 = 10_000;
/// Instructions of the file itself, and of each run of a case.
pub const MOST_INSTRUCTIONS: u64 = 50_000_000;
/// Memory of a test file.
const MOST_MEMORY: usize = 256 << 20;
/// Longest file that `file` reads.
const MOST_FILE: u64 = 16 << 20;

/// What the functions of a test file work on.
struct Bench {
    world: Option<World>,
    directory: PathBuf,
    /// Chunk name of the test file.
    source: String,
    expected: bool,
    /// Instructions that are left.
    left: u64,
    /// Where it was when none were.
    stopped: Option<String>,
}

type Shared = Rc<RefCell<Bench>>;

/// A test file, loaded.
pub struct Engine {
    cases: Vec<Case>,
    run: Function,
    bench: Shared,
    // Keeps the state.
    _lua: Lua,
}

/// One `it`.
#[derive(Clone, Debug)]
pub struct Case {
    /// With the names of the `describe` around it.
    pub name: String,
    /// `file:line`.
    pub place: String,
    body: Table,
}

impl Engine {
    /// Runs the file, which names its cases.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path, text: &[u8]) -> Result<Engine, Problem> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let broken = |error: mlua::Error| unplaced(&name, &error);
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::BIT;
        let lua = Lua::new_with(libraries, LuaOptions::default()).map_err(broken)?;
        lua.set_memory_limit(MOST_MEMORY).map_err(broken)?;
        let bench = Rc::new(RefCell::new(Bench {
            world: None,
            directory: path.parent().unwrap_or(Path::new("")).to_owned(),
            source: format!("@{name}"),
            expected: false,
            left: MOST_INSTRUCTIONS,
            stopped: None,
        }));
        watch(&lua, &bench, STEP).map_err(broken)?;
        for absent in ["dofile", "loadfile", "collectgarbage"] {
            lua.globals().raw_set(absent, Value::Nil).map_err(broken)?;
        }
        let host = host(&lua, &bench).map_err(broken)?;
        let prelude: Table = lua.load(PRELUDE).set_name("=weir").call(host).map_err(broken)?;
        let load: Function = prelude.get("load").map_err(broken)?;
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let chunk = lua.load(text).set_name(format!("@{name}")).into_function().map_err(broken)?;
        if let Some(problem) = problem(load.call(chunk).map_err(broken)?).map_err(broken)? {
            return Err(problem);
        }
        let listed: Table = prelude.get("cases").map_err(broken)?;
        let cases = listed.sequence_values().map(|case| Case::read(case?)).collect::<mlua::Result<_>>();
        Ok(Engine {
            cases: cases.map_err(broken)?,
            run: prelude.get("run").map_err(broken)?,
            bench,
            _lua: lua,
        })
    }

    /// The cases, in order.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Runs a case in a fresh world. Gives the world as it is then, and why the case failed.
    pub fn run(&self, case: &Case, world: World) -> (Option<World>, Option<Problem>) {
        {
            let mut bench = self.bench.borrow_mut();
            bench.world = Some(world);
            bench.expected = false;
            bench.left = MOST_INSTRUCTIONS;
            bench.stopped = None;
        }
        let failed = self.run.call(case.body.clone()).and_then(problem);
        let mut bench = self.bench.borrow_mut();
        let failed = failed.unwrap_or_else(|error| Some(unplaced(&case.place, &error)));
        let nothing = || Problem {
            place: case.place.clone(),
            text: "the case expects nothing, so that it cannot fail: write expect(flow):selects(\"pool\")"
                .to_owned(),
            wanted: None,
            got: None,
        };
        let failed = failed.or_else(|| (!bench.expected).then(nothing));
        (bench.world.take(), failed)
    }
}

impl Case {
    fn read(table: Table) -> mlua::Result<Case> {
        Ok(Case { name: lossy(&table, "name")?, place: lossy(&table, "place")?, body: table })
    }
}

fn lossy(table: &Table, key: &str) -> mlua::Result<String> {
    Ok(table.raw_get::<mlua::LuaString>(key)?.to_string_lossy())
}

/// What `protected` of the prelude gives: nil, or a table.
fn problem(value: Value) -> mlua::Result<Option<Problem>> {
    let Value::Table(table) = value else { return Ok(None) };
    let optional = |key| -> mlua::Result<Option<String>> {
        let text: Option<mlua::LuaString> = table.raw_get(key)?;
        Ok(text.map(|text| text.to_string_lossy()).filter(|text| !text.is_empty()))
    };
    Ok(Some(Problem {
        place: lossy(&table, "place")?,
        text: lossy(&table, "text")?,
        wanted: optional("wanted")?,
        got: optional("got")?,
    }))
}

/// What an error says, without where it went through.
fn message(error: &mlua::Error) -> String {
    let text = match error {
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::CallbackError { cause, .. } => message(cause),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
}

/// An error that Lua itself raised: `file:3: text`.
fn unplaced(file: &str, error: &mlua::Error) -> Problem {
    let text = message(error);
    let line = text.split_once(':').and_then(|(name, rest)| {
        let (line, rest) = rest.split_once(": ")?;
        line.parse::<usize>().ok()?;
        Some((format!("{name}:{line}"), rest.to_owned()))
    });
    let (place, text) = line.unwrap_or_else(|| (file.to_owned(), text));
    Problem { place, text, wanted: None, got: None }
}

/// Stops a file that runs for too long, also inside `pcall`.
fn watch(lua: &Lua, bench: &Shared, step: u32) -> mlua::Result<()> {
    let bench = Rc::clone(bench);
    lua.set_hook(HookTriggers::new().every_nth_instruction(step), move |lua, _| {
        let mut held = bench.borrow_mut();
        held.left = held.left.saturating_sub(u64::from(step));
        if held.left > 0 {
            return Ok(VmState::Continue);
        }
        drop(held);
        // From here on after each instruction, so that no `pcall` goes on for long.
        if step > 1 {
            watch(lua, &bench, 1)?;
        }
        // What handles errors is stopped, too, so that the text has to say where the first time was.
        let here = place(lua, &bench);
        let place = bench.borrow_mut().stopped.get_or_insert(here).clone();
        let limit = MOST_INSTRUCTIONS / 1_000_000;
        let text = format!("{place}: stopped after {limit} million instructions: does a loop have no end?");
        Err(mlua::Error::RuntimeError(text))
    })
}

/// The functions that the prelude builds on.
fn host(lua: &Lua, bench: &Shared) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    network(lua, &host, bench)?;
    state(lua, &host, bench)?;
    report(lua, &host, bench)?;
    Ok(host)
}

/// `name(...)`: what `act` gives, or nil and why not.
fn give<A: FromLuaMulti, R: IntoLua>(
    lua: &Lua,
    host: &Table,
    name: &str,
    bench: &Shared,
    act: impl Fn(&Lua, &mut World, A) -> Result<R, String> + 'static,
) -> mlua::Result<()> {
    let bench = Rc::clone(bench);
    let function = lua.create_function(move |lua, arguments: A| {
        let place = place(lua, &bench);
        let mut held = bench.borrow_mut();
        let result = match &mut held.world {
            None => Err("there is a network inside of `it` only".to_owned()),
            Some(world) => {
                world.at(place);
                act(lua, world, arguments)
            }
        };
        answer(lua, result)
    })?;
    host.raw_set(name, function)
}

fn answer<R: IntoLua>(lua: &Lua, result: Result<R, String>) -> mlua::Result<(Value, Value)> {
    match result {
        Ok(value) => Ok((value.into_lua(lua)?, Value::Nil)),
        Err(text) => Ok((Value::Nil, text.into_lua(lua)?)),
    }
}

type Bytes = mlua::LuaString;

fn network(lua: &Lua, host: &Table, bench: &Shared) -> mlua::Result<()> {
    give(
        lua,
        host,
        "client",
        bench,
        |_, world, (address, to, proto): (Bytes, Option<Value>, Option<Value>)| {
            let text = |value: Option<Value>, what: &str| match value {
                None => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.to_string_lossy())),
                Some(other) => Err(format!("{what} is a string, not a {}", other.type_name())),
            };
            let (to, proto) = (text(to, "`to`")?, text(proto, "`proto`")?);
            world.client(&address.to_string_lossy(), to.as_deref(), proto.as_deref())
        },
    )?;
    give(lua, host, "send", bench, |_, world, (flow, bytes, whole): (usize, Bytes, bool)| {
        world.send(flow, &bytes.as_bytes(), whole).map(|()| true)
    })?;
    give(lua, host, "reply", bench, |_, world, (flow, bytes, whole): (usize, Bytes, bool)| {
        world.reply(flow, &bytes.as_bytes(), whole).map(|()| true)
    })?;
    give(lua, host, "finish", bench, |_, world, flow: usize| world.finish(flow).map(|()| true))?;
    give(lua, host, "reset", bench, |_, world, flow: usize| world.reset(flow).map(|()| true))?;
    give(lua, host, "wait", bench, |_, world, seconds: f64| {
        world.wait(seconds);
        Ok(true)
    })?;
    give(lua, host, "facts", bench, |lua, world, flow: usize| {
        facts(lua, &world.facts(flow)?).map_err(|error| error.to_string())
    })
}

fn facts(lua: &Lua, facts: &Facts) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pool", facts.pool.as_deref())?;
    table.raw_set("server", facts.server.as_deref())?;
    table.raw_set("log", lua.create_string(&facts.log)?)?;
    table.raw_set("error", facts.error.as_deref())?;
    table.raw_set("closed", facts.closed)?;
    table.raw_set("waiting", facts.waiting)?;
    table.raw_set("runs", facts.runs[0])?;
    table.raw_set("server_received", lua.create_string(&facts.server_received)?)?;
    table.raw_set("client_received", lua.create_string(&facts.client_received)?)?;
    Ok(table)
}

fn state(lua: &Lua, host: &Table, bench: &Shared) -> mlua::Result<()> {
    give(lua, host, "find_server", bench, |_, world, (pool, address): (Bytes, Option<Bytes>)| {
        let address = address.map(|address| address.to_string_lossy());
        world.find_server(&pool.to_string_lossy(), address.as_deref()).map(|_| true)
    })?;
    give(lua, host, "set_server", bench, |_, world, (pool, address, state): (Bytes, Bytes, Bytes)| {
        let (pool, address) = (pool.to_string_lossy(), address.to_string_lossy());
        world.set_server(&pool, &address, &state.to_string_lossy()).map(|()| true)
    })?;
    type Insert = (Option<Bytes>, Option<Bytes>, Bytes, Bytes, f64);
    give(lua, host, "insert", bench, |_, world, (service, table, key, value, lifetime): Insert| {
        let service = service.map(|service| service.to_string_lossy());
        let table = table.as_ref().map(|table| table.as_bytes().to_vec());
        let (key, value) = (key.as_bytes(), value.as_bytes());
        world.insert(service.as_deref(), table.as_deref(), &key, &value, lifetime).map(|()| true)
    })?;
    give(
        lua,
        host,
        "lookup",
        bench,
        |lua, world, (service, table, key): (Option<Bytes>, Option<Bytes>, Bytes)| {
            let service = service.map(|service| service.to_string_lossy());
            let table = table.as_ref().map(|table| table.as_bytes().to_vec());
            let found = world.lookup(service.as_deref(), table.as_deref(), &key.as_bytes())?;
            let answer = || -> mlua::Result<Table> {
                let answer = lua.create_table()?;
                if let Some((value, seconds)) = found {
                    answer.raw_set("value", lua.create_string(value)?)?;
                    answer.raw_set("seconds", seconds)?;
                }
                Ok(answer)
            };
            answer().map_err(|error| error.to_string())
        },
    )
}

fn report(lua: &Lua, host: &Table, bench: &Shared) -> mlua::Result<()> {
    let shared = Rc::clone(bench);
    let here = lua.create_function(move |lua, ()| Ok(place(lua, &shared)))?;
    host.raw_set("place", here)?;
    let shared = Rc::clone(bench);
    let read = lua.create_function(move |lua, name: Bytes| {
        let path = shared.borrow().directory.join(name.to_string_lossy());
        let bytes =
            read_file(&path).and_then(|bytes| lua.create_string(bytes).map_err(|error| error.to_string()));
        answer(lua, bytes)
    })?;
    host.raw_set("file", read)?;
    let shared = Rc::clone(bench);
    let expected = lua.create_function(move |_, ()| {
        shared.borrow_mut().expected = true;
        Ok(())
    })?;
    host.raw_set("expected", expected)?;
    let near = lua.create_function(|_, (name, known): (Bytes, Vec<String>)| {
        Ok(nearest(&name.to_string_lossy(), known.iter().map(String::as_str)).map(str::to_owned))
    })?;
    host.raw_set("nearest", near)?;
    host.raw_set("show", lua.create_function(|_, value: Value| shown(&value))?)?;
    let differs = lua.create_function(|_, (wanted, got): (Bytes, Bytes)| {
        Ok(show::difference(&wanted.as_bytes(), &got.as_bytes()))
    })?;
    host.raw_set("differs", differs)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let why = |why: String| format!("cannot read {}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|error| why(error.to_string()))?;
    let mut bytes = Vec::new();
    // What is no file has no length of its own.
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST_FILE + 1), &mut bytes)
        .map_err(|error| why(error.to_string()))?;
    if bytes.len() as u64 > MOST_FILE {
        return Err(why(format!("it has more than {MOST_FILE} bytes")));
    }
    Ok(bytes)
}

fn shown(value: &Value) -> mlua::Result<String> {
    Ok(match value {
        Value::String(text) => show::bytes(&text.as_bytes()),
        Value::Table(_) | Value::Function(_) | Value::UserData(_) => format!("a {}", value.type_name()),
        other => other.to_string()?,
    })
}

/// The line of the test file that is being run.
fn place(lua: &Lua, bench: &Shared) -> String {
    let source = bench.borrow().source.clone();
    let line = (0..100).map_while(|level| {
        lua.inspect_stack(level, |frame| {
            let ours = frame.source().source.as_deref() == Some(source.as_str());
            ours.then(|| frame.current_line()).flatten()
        })
    });
    let file = source.trim_start_matches('@');
    match line.flatten().next() {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    }
}
