-- The world of a script. Runs once per Lua state; what it returns runs each script. On the first line, before this
-- text, stand the lists UNSUPPORTED and UNSUPPORTED_SPACES.
--
-- No table that a run has left a mark in is ever handed to another one: libraries are seen through empty tables made per
-- run, the tables of `avi` through userdata. What is still as it was made when a run is over serves the next one. Only
-- contained scripts, whose text shows that they write to no table but their own, share the tables themselves.

local native, string_meta, significant = ...

local assert, error, getmetatable, ipairs, newproxy = assert, error, getmetatable, ipairs, newproxy
local pairs, rawget, rawset, select, setfenv = pairs, rawget, rawset, select, setfenv
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local pcall, xpcall = pcall, xpcall
local base_string, base_table, base_os = string, table, os
local floor, ceil = math.floor, math.ceil

-- Longest text that one call may make, in bytes.
local OUTPUT = 1048576
-- Most arguments of string.format, and the longest format of it and of os.date.
local FORMAT_ARGUMENTS, FORMAT_BYTES, DATE_BYTES = 100, 65536, 256

-- Texts from this length on cost a look at the clock.
local LONG = 4096
local tick, watch, raise = native.tick, native.watch, native.raise

-- The world of the run that is active: its main function at 1, its environment in `globals`, its views of the libraries
-- by their names (and `shown` if there are any), what it may require in `modules`, what it has required in `loaded`;
-- `touched` once its script may have written to the environment, `written` once it may have written to a view.
-- `collect` keeps it for its run while others go on. False while a contained script runs that
-- needs to know.
local world

-- What every environment shows.
local plain = {}
for _, name in ipairs({
  "assert", "error", "getmetatable", "ipairs", "next", "pairs", "rawequal", "rawget", "rawset", "select",
  "setmetatable", "tonumber", "tostring", "type", "unpack", "_VERSION",
}) do
  plain[name] = _G[name]
end

-- Errors that end a run whatever the script does. At the end of the stack there is no room for the hook that looks at
-- the clock, so a script that went on there would never be stopped; without memory it would only fail again; and a
-- message handler for an error of the hook runs with hooks off.
local function fatal(problem)
  return type(problem) == "string" and (base_string.sub(problem, -14) == "stack overflow"
    or problem == "the time budget of the run is over"
    or base_string.sub(problem, -17) == "not enough memory"
    or base_string.sub(problem, -23) == "error in error handling")
end

local function settle(ok, problem, ...)
  if not ok and fatal(problem) then error(problem, 0) end
  return ok, problem, ...
end

function plain.pcall(f, ...)
  return settle(pcall(f, ...))
end

function plain.xpcall(f, handler, ...)
  local function handle(problem)
    if fatal(problem) then return problem end
    return handler(problem)
  end
  return settle(xpcall(f, handle, ...))
end

-- Takes note of what writes to a view without asking its metatable. Even a name that is removed again leaves a trace, which
-- `next` shows. Only views and environments, and at worst a script's own tables, have a `__metatable` of false.
local function about_to_write(target)
  if world and getmetatable(target) == false then world.written = true end
end

function plain.rawset(target, ...)
  about_to_write(target)
  return rawset(target, ...)
end

local function copy(functions, ...)
  local result = {}
  for name, value in pairs(functions) do
    result[name] = value
  end
  for _, name in ipairs({ ... }) do
    result[name] = nil
  end
  return result
end

local function wrong(position, name, wanted, value)
  local text = "bad argument #" .. position .. " to '" .. name .. "' (" .. wanted .. " expected, got " ..
    (value == nil and "no value" or type(value)) .. ")"
  raise(text)
end

-- A text that spells a number is short; what is longer is looked at only while there is time.
function plain.tonumber(...)
  local text = ...
  if type(text) == "string" and #text > LONG then tick(#text) end
  return tonumber(...)
end

-- There is no console; what a script prints goes to the debug log.
function plain.print(...)
  watch()
  local texts = {}
  for i = 1, select("#", ...) do
    texts[i] = tostring((select(i, ...)))
  end
  native["avi.vs.debuglog"](base_table.concat(texts, "\t"))
end

-- string ------------------------------------------------------------------------------------------------------------

local string_library = copy(base_string, "dump", "gfind")
for _, name in ipairs({ "find", "match", "beginswith", "endswith", "contains" }) do
  string_library[name] = assert(native["string." .. name])
end

local step, replace = native["string.gmatch"], native["string.gsub"]

function string_library.gmatch(text, pattern)
  if type(text) == "number" then text = tostring(text) end
  if type(pattern) == "number" then pattern = tostring(pattern) end
  if type(text) ~= "string" then wrong(1, "gmatch", "string", text) end
  if type(pattern) ~= "string" then wrong(2, "gmatch", "string", pattern) end
  local at = 1
  local function advance(first, last, ...)
    if not first then
      at = #text + 2
      return nil
    end
    at = last >= first and last + 1 or first + 1
    return ...
  end
  return function()
    if at > #text + 1 then return nil end
    return advance(step(text, pattern, at, false))
  end
end

local function looked_up(repl, kind, first, last, ...)
  if not first then return nil end
  if kind == "table" then return first, last, repl[(...)] end
  return first, last, (repl(...))
end

local function add(parts, size, text)
  size = size + #text
  if size > OUTPUT then raise("string.gsub: result is longer than " .. OUTPUT .. " bytes") end
  parts[#parts + 1] = text
  return size
end

local function replace_by(text, pattern, repl, kind, most)
  watch()
  local parts, size, at, count = {}, 0, 1, 0
  local anchored = base_string.byte(pattern, 1) == 94
  while count < most do
    local first, last, value = looked_up(repl, kind, step(text, pattern, at, true))
    if not first then break end
    count = count + 1
    if not value then
      value = base_string.sub(text, first, last)
    elseif type(value) == "number" then
      value = tostring(value)
    elseif type(value) ~= "string" then
      raise("invalid replacement value (a " .. type(value) .. ")")
    end
    size = add(parts, size, base_string.sub(text, at, first - 1))
    size = add(parts, size, value)
    at = last + 1
    if last < first then
      if first > #text then
        at = first
        break
      end
      size = add(parts, size, base_string.sub(text, first, first))
      at = first + 1
    end
    if anchored then break end
  end
  size = add(parts, size, base_string.sub(text, at))
  if size > LONG then tick(size) end
  return base_table.concat(parts), count
end

function string_library.gsub(text, pattern, repl, most)
  local kind = type(repl)
  if kind == "string" or kind == "number" then return replace(text, pattern, repl, most) end
  if kind ~= "table" and kind ~= "function" then wrong(3, "gsub", "string/function/table", repl) end
  if type(text) == "number" then text = tostring(text) end
  if type(pattern) == "number" then pattern = tostring(pattern) end
  if type(text) ~= "string" then wrong(1, "gsub", "string", text) end
  if type(pattern) ~= "string" then wrong(2, "gsub", "string", pattern) end
  if most ~= nil and not tonumber(most) then wrong(4, "gsub", "number", most) end
  return replace_by(text, pattern, repl, kind, tonumber(most) or #text + 1)
end

-- Bytes of a string, or of the text of a number.
local function length(value)
  return type(value) == "string" and #value or type(value) == "number" and #tostring(value) or 0
end

function string_library.rep(text, count, separator)
  local size = length(text) + length(separator)
  local times = tonumber(count)
  if times and size * times > OUTPUT then
    raise("string.rep: result is longer than " .. OUTPUT .. " bytes")
  end
  if times and size * times > LONG then tick(size * times) end
  return base_string.rep(text, count, separator)
end

function string_library.format(pattern, ...)
  if select("#", ...) > FORMAT_ARGUMENTS then
    raise("string.format: more than " .. FORMAT_ARGUMENTS .. " arguments")
  end
  if type(pattern) == "string" and #pattern > FORMAT_BYTES then
    raise("string.format: format is longer than " .. FORMAT_BYTES .. " bytes")
  end
  if select("#", ...) > 8 then watch() end
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if type(value) == "string" and #value > LONG then tick(#value) end
  end
  return base_string.format(pattern, ...)
end

for _, name in ipairs({ "lower", "reverse", "upper" }) do
  local base = base_string[name]
  string_library[name] = function(text)
    if type(text) == "string" and #text > LONG then tick(#text) end
    return base(text)
  end
end

-- table -------------------------------------------------------------------------------------------------------------

local table_library = copy(base_table, "new", "clear", "move")

local insert = base_table.insert
function table_library.insert(list, ...)
  about_to_write(list)
  return insert(list, ...)
end

-- A place in a list as a whole number of 32 bits, so that it means the same here and in the base function.
local function place(position, value)
  local number = tonumber(value)
  if not number then wrong(position, "concat", "number", value) end
  number = number < 0 and ceil(number) or floor(number)
  if number > 2147483647 then return 2147483647 end
  return number >= -2147483648 and number or -2147483648
end

function table_library.concat(list, separator, first, last)
  if type(list) ~= "table" then wrong(1, "concat", "table", list) end
  watch()
  first = first == nil and 1 or place(3, first)
  last = last == nil and #list or place(4, last)
  local gap, size = length(separator), 0
  for i = first, last do
    -- The base function does not ask metatables either.
    local item = rawget(list, i)
    size = size + gap + (type(item) == "string" and #item or 32)
    if size > OUTPUT then raise("table.concat: result is longer than " .. OUTPUT .. " bytes") end
    if item == nil then break end
  end
  if size > LONG then tick(size) end
  return base_table.concat(list, separator, first, last)
end

local function merge(from, to, low, middle, high, before)
  local left, right = low, middle
  for i = low, high - 1 do
    if left < middle and (right >= high or not before(from[right], from[left])) then
      to[i] = from[left]
      left = left + 1
    else
      to[i] = from[right]
      right = right + 1
    end
  end
end

-- In Lua, so that the budget holds inside of it: a merge sort, which ends whatever `before` says.
function table_library.sort(list, before)
  if type(list) ~= "table" then wrong(1, "sort", "table", list) end
  if before == nil then
    before = function(a, b) return a < b end
  elseif type(before) ~= "function" then
    wrong(2, "sort", "function", before)
  end
  watch()
  local size = #list
  local from, to = {}, {}
  for i = 1, size do
    from[i] = list[i]
  end
  local width = 1
  while width < size do
    for low = 1, size, 2 * width do
      local middle, high = low + width, low + 2 * width
      merge(from, to, low, middle > size + 1 and size + 1 or middle, high > size + 1 and size + 1 or high, before)
    end
    from, to = to, from
    width = 2 * width
  end
  for i = 1, size do
    list[i] = from[i]
  end
end

-- math, bit, os -----------------------------------------------------------------------------------------------------

local math_library = copy(math)
-- The generator is shared by all runs of the state: no script may wind it back for the others.
function math_library.randomseed() end

local os_library = { time = base_os.time, clock = base_os.clock }
function os_library.date(format, time)
  if type(format) == "string" and #format > DATE_BYTES then
    raise("os.date: format is longer than " .. DATE_BYTES .. " bytes")
  end
  return base_os.date(format, time)
end

-- avi ---------------------------------------------------------------------------------------------------------------

-- A name that can be indexed, but neither changed nor listed.
local function namespace(name, members)
  local proxy = newproxy(true)
  local meta = getmetatable(proxy)
  meta.__index = members
  meta.__newindex = function(_, key) raise(name .. "." .. tostring(key) .. " cannot be set") end
  meta.__tostring = function() return name end
  meta.__metatable = false
  return proxy
end

local function unsupported(name)
  return function() raise(name .. ": not supported") end
end

-- All functions of a namespace, those that are not supported among them.
local function members(prefix)
  local result = {}
  local pattern = "^" .. base_string.gsub(prefix, "%.", "%%.") .. "%.([%w_]+)$"
  for full, f in pairs(native) do
    local name = base_string.match(full, pattern)
    if name then result[name] = f end
  end
  for _, full in ipairs(UNSUPPORTED) do
    local name = base_string.match(full, pattern)
    if name then result[name] = unsupported(full) end
  end
  return setmetatable(result, {
    __index = function(_, key)
      if type(key) == "string" and base_string.find(base_string.lower(key), "ftp", 1, true) then
        return unsupported(prefix .. "." .. key)
      end
      return nil
    end,
  })
end

-- Makes a world the active one.
local function enter(own)
  world = own
  string_meta.__index = own.string or string_library
end

local l4 = members("avi.l4")
local collect = native["avi.l4.collect"]
function l4.collect(...)
  local own = world
  local buffered = collect(...)
  if world ~= own then enter(own) end
  return buffered
end

local vs, pool, poolgroup = members("avi.vs"), members("avi.pool"), members("avi.poolgroup")
vs.reqvar = newproxy(true)
local reqvar_meta = getmetatable(vs.reqvar)
reqvar_meta.__index = native["avi.vs.reqvar"]
reqvar_meta.__newindex = native["avi.vs.reqvar="]
reqvar_meta.__metatable = false

local function nothing_supported(prefix)
  return setmetatable({}, { __index = function(_, key) return unsupported(prefix .. "." .. tostring(key)) end })
end

local spaces = {
  SIG_ENABLE = significant,
  l4 = namespace("avi.l4", l4),
  vs = namespace("avi.vs", vs),
  pool = namespace("avi.pool", pool),
  poolgroup = namespace("avi.poolgroup", poolgroup),
}
for _, full in ipairs(UNSUPPORTED_SPACES) do
  spaces[base_string.match(full, "[%w_]+$")] = namespace(full, nothing_supported(full))
end
local avi = namespace("avi", spaces)

-- Environments ------------------------------------------------------------------------------------------------------

local function write_to_view(view, name, value)
  world.written = true
  rawset(view, name, value)
end

local views = {}
for name, functions in pairs({
  string = string_library, table = table_library, math = math_library, bit = copy(bit), os = os_library,
}) do
  views[name] = { __index = functions, __newindex = write_to_view, __metatable = false }
end

string_meta.__index = string_library
string_meta.__metatable = false

-- Gives the active world its view of a library.
local function show(globals, name)
  local library = setmetatable({}, views[name])
  world[name], world.shown = library, true
  if name == "string" then string_meta.__index = library end
  rawset(globals, name, library)
  return library
end

-- Once a script has the table of its environment in its hands it can write to it without anybody being told, and see what
-- is in it: all views, so that it does not see which of them earlier runs have named.
local function touch(globals)
  if world.touched then return end
  world.touched = true
  for name in pairs(views) do
    if not world[name] then show(globals, name) end
  end
  rawset(globals, "_G", globals)
end

-- What an environment does not have. A library that is named for the first time in a run gets its view there; so a script
-- may add to it for itself.
setmetatable(plain, {
  __index = function(_, name)
    local globals = world.globals
    if name == "_G" and not world.touched then
      touch(globals)
      return globals
    end
    if not views[name] then return nil end
    return world[name] or show(globals, name)
  end,
})

local of_main = { __index = plain, __metatable = false }
function of_main.__newindex(globals, name, value)
  touch(globals)
  rawset(globals, name, value)
end

local of_module = { __index = plain, __metatable = false }

-- A world for a run of a script, whose table has its text as a function in `outer`.
local function create(script)
  -- Places for all names from the start, in an order that does not depend on which are used first.
  local globals = { avi = avi, _G = false, bit = false, math = false, os = false, string = false, table = false }
  globals._G = nil
  for name in pairs(views) do
    globals[name] = nil
  end
  setmetatable(globals, of_main)
  local outer = script.outer
  setfenv(outer, globals)
  return {
    outer(), globals = globals, modules = script.modules, loaded = false, bit = false, math = false, os = false,
    string = false, table = false, shown = false, touched = false, written = false, next = false,
  }
end

-- True if the views of a world are still in their places.
local function views_in_place(own, globals)
  for name in pairs(views) do
    local library = own[name]
    if library and rawget(globals, name) ~= library then return false end
  end
  return true
end

-- True if a run has left nothing behind in its world.
local function as_created(own)
  local globals = own.globals
  return not own.touched and not own.written and globals.avi == avi
    and (not own.shown or views_in_place(own, globals))
end

local LOADING = {}

function plain.require(name)
  local loaded, module = world.loaded, nil
  if loaded then module = loaded[name] end
  if module == LOADING then raise("require: module '" .. tostring(name) .. "' requires itself") end
  if module ~= nil then return module end
  local outer = type(name) == "string" and world.modules[name]
  if not outer then
    raise("require: module '" .. tostring(name) .. "' is not attached to this DataScript set")
  end
  if not loaded then
    loaded = {}
    world.loaded = loaded
  end
  loaded[name] = LOADING
  -- Room for both names from the start: a table that grows is two allocations more.
  local globals = setmetatable({ avi = avi, _G = false }, of_module)
  globals._G = globals
  setfenv(outer, globals)
  module = outer()(name)
  if module == nil then module = globals end
  loaded[name] = module
  return module
end

-- Worlds that are kept per script: as many as are likely to wait in `collect` and to end together.
local KEPT = 32

-- Contained scripts -------------------------------------------------------------------------------------------------

-- A world of nobody, which is there from the end of a run to the next one, and while another one is left.
local nowhere = {}

-- Makes what strings show the plain library again, after a run with an own view of it. The budget may end between any two
-- steps: then the next run that needs to leaves once more, and one that goes on enters its own world.
local function leave()
  world = nowhere
  string_meta.__index = string_library
  world = false
end

-- The environment of all contained scripts, in which everything can be had by name and nothing as a value that holds others.
-- `own_l4` is `avi.l4`.
local function contained_globals(own_l4)
  local globals = copy(plain, "require")
  globals.string, globals.math, globals.bit, globals.os = string_library, math_library, views.bit.__index, os_library
  globals.table = table_library
  globals.avi = { SIG_ENABLE = significant, l4 = own_l4, vs = vs, pool = pool, poolgroup = poolgroup }
  return globals
end

local l4_of_indexing = members("avi.l4")
function l4_of_indexing.collect(...)
  local buffered = collect(...)
  if world then leave() end
  return buffered
end

local globals_of_plain, globals_of_indexing = contained_globals(members("avi.l4")), contained_globals(l4_of_indexing)

-- The main function of a contained script from its text as a function; all its runs share it. In a table for
-- `run_indexing` if it may look up a field of a string.
local function contain(outer, indexes)
  setfenv(outer, indexes and globals_of_indexing or globals_of_plain)
  return indexes and { outer() } or outer()
end

-- Runs what `contain` has made of a script that may look up a field of a string. Called by no name, as `run` does it:
-- tracebacks show it.
local function run_indexing(script)
  if world then leave() end
  script[1]()
end

-- Other scripts ------------------------------------------------------------------------------------------------------

-- Runs a script: `script` has the fields of `create`, and in `idle` the first of `count` worlds that wait for their use, or
-- false. Fields that are never nil are written without a detour.
local function run(script)
  local own = script.idle
  if own then
    script.idle, script.count = own.next, script.count - 1
    own.next = false
  else
    own = create(script)
  end
  world = own
  string_meta.__index = own.string or string_library
  own[1]()
  own.loaded = false
  -- A script that is let go is not to live on in its last world.
  world = nowhere
  local count = script.count
  if count < KEPT and as_created(own) then
    -- The budget may end between any two steps: first whole, then in the list.
    own.next = script.idle
    script.idle, script.count = own, count + 1
  end
end

return run, contain, run_indexing
