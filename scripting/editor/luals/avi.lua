---@meta _
-- Written from the table in scripting/check/src/api by its tests: WEIR_BLESS=1 cargo test -p script-check

---The DataScript API of weir.
---@class avi
avi = {}

---@class avi.SIG_ENABLE
---The last argument of `avi.vs.log` for a significant record.
---@type avi.SIG_ENABLE
avi.SIG_ENABLE = nil

---@class avi.l4
avi.l4 = {}
---@class avi.vs
avi.vs = {}
---@class avi.pool
avi.pool = {}
---@class avi.poolgroup
avi.poolgroup = {}

---Values of the script's own, from the request to the response of a flow.
---@type { [string]: string|number|boolean|nil }
avi.vs.reqvar = {}

---Gives bytes of the payload that is buffered. They stay there: they still go to the server, and a second call gives the same.
---
---Available in: request, response.
---
---Errors: Fewer than `offset + n` bytes are buffered; `n` is above 65000.
---@param n? integer how many bytes; all that are buffered if left out or 0
---@param offset? integer bytes to skip before them, 0 if left out
---@param side? "client"|"server" whose bytes; those of the event's own side if left out
---@return string payload the bytes
function avi.l4.read(n, offset, side) end

---Waits until at least `n` bytes are buffered; only this flow waits. A string that was read before it is as short as it was: read again.
---
---Available in: request, response.
---
---Errors: `n` is above 65000; the flow cannot wait for more (`profile = "fast_path"`).
---@param n integer how many bytes in all, not how many more
---@return integer buffered how many bytes are buffered now, `n` or more
function avi.l4.collect(n) end

---No further run of this event's script for the flow. The current run goes on.
---
---Available in: request, response.
function avi.l4.ds_done() end

---The same as `avi.l4.ds_done()`.
---
---Available in: request, response.
function avi.vs.ds_done() end

---Appends its arguments to the `ds_log` of the connection record, without anything between them. A call is cut at 256 bytes, all of a flow at 4096. `avi.SIG_ENABLE` as the last argument marks the record as significant.
---
---Available in: request, response.
---
---Errors: An argument is a table or a function.
---@param ... string|number|boolean|avi.SIG_ENABLE|nil what is appended, as text
function avi.vs.log(...) end

---As `avi.vs.log`, where the virtual service has its debug log on; nothing elsewhere.
---
---Available in: request, response.
---
---Errors: An argument is a table or a function.
---@param ... string|number|boolean|avi.SIG_ENABLE|nil what is appended, as text
function avi.vs.debuglog(...) end

---Closes the flow when the run ends. The run goes on, and a later `select` does not take it back. Over UDP the datagram is dropped and the flow forgotten.
---
---Available in: request, response.
---@param reset? boolean true: with RST; else with FIN
function avi.vs.close_conn(reset) end

---The address of the client.
---
---Available in: request, response.
---@return string address dotted IPv4, or IPv6 as in RFC 5952
function avi.vs.client_ip() end

---The port of the client.
---
---Available in: request, response.
---@return string port digits, a string
function avi.vs.client_port() end

---The address of the virtual service that the client used.
---
---Available in: request, response.
---@return string address dotted IPv4, or IPv6 as in RFC 5952
function avi.vs.ip() end

---The port that the client used. Compare it with a string: `avi.vs.port() == "443"`.
---
---Available in: request, response.
---@return string port digits, a string
function avi.vs.port() end

---The name of the virtual service.
---
---Available in: request, response.
---@return string name as in the configuration
function avi.vs.name() end

---Keeps flows with the same key on one server: the one that the default table holds for the key if it is up, else one that the pool's algorithm chooses and that is stored. A later `select` decides instead, and the entry then records the server it led to.
---
---Available in: request.
---
---Errors: The pool does not exist or is not attached; the lifetime is zero or negative.
---@param key string|number|boolean|nil what the flows of one client have in common; nil: nothing happens
---@param lifetime? integer seconds; 300 if left out, and smaller ones are raised to 300
---@param pool? string where a new server is chosen; the default pool if left out
function avi.vs.persist(key, lifetime, pool) end

---Adds an entry. A key that is there **keeps its value** and gets the new lifetime; remove it first to replace it.
---
---Available in: request, response.
---
---Errors: The lifetime is zero or negative.
---@overload fun(table: string|number|boolean, key: string|number|boolean|nil, value: string|number|boolean|nil, lifetime?: integer): boolean
---@param key string|number|boolean|nil numbers and booleans are taken as their text
---@param value string|number|boolean|nil numbers and booleans are stored as their text
---@param lifetime? integer seconds; 300 if left out, and smaller ones are raised to 300
---@return boolean stored false: no room, too long, or a nil key or value
function avi.vs.table_insert(key, value, lifetime) end

---Gives the value of a key and **prolongs the entry**, by 300 seconds unless told otherwise.
---
---Available in: request, response.
---
---Errors: The extension is negative.
---@overload fun(table: string|number|boolean, key: string|number|boolean|nil, extension?: integer): string?, integer?
---@param key string|number|boolean|nil numbers and booleans are taken as their text
---@param extension? integer seconds that are added to the entry's life: 300 if left out, 0 adds none
---@return string? value nil: there is no such entry
---@return integer? seconds how long the entry lives, with what was added
function avi.vs.table_lookup(key, extension) end

---Lets an entry live until `extension` seconds from now, if that is later than it does anyway. Raises no error, whatever it is given.
---
---Available in: request, response.
---@overload fun(table: string|number|boolean, key: string|number|boolean|nil, extension?: integer): boolean
---@param key string|number|boolean|nil numbers and booleans are taken as their text
---@param extension? integer seconds from now that the entry lives at least; 300 if left out
---@return boolean found whether the key was there
function avi.vs.table_refresh(key, extension) end

---Removes an entry, on all cores. A key that is not there is no error.
---
---Available in: request, response.
---@overload fun(table: string|number|boolean, key: string|number|boolean|nil)
---@param key string|number|boolean|nil numbers and booleans are taken as their text
function avi.vs.table_remove(key) end

---Tells whether a server is up.
---
---Available in: request, response.
---
---Errors: The pool does not exist or is not attached.
---@param pool string a pool that is attached to the set, or the default
---@param server string address or host name, as configured
---@param port integer|string number or digits
---@return 0|1 status 1: up and enabled. 0: not, or the pool has no such server
function avi.pool.get_server_status(pool, server, port) end

---Counts the servers of a pool.
---
---Available in: request, response.
---
---Errors: The pool does not exist or is not attached; none is given and the virtual service has no default.
---@param pool? string the default pool or pool group if left out
---@return integer up how many servers are up
---@return integer total how many there are
function avi.pool.get_servers(pool) end

---The address of the flow's server.
---
---Available in: request, response.
---@return string? address nil while there is no server
function avi.pool.server_ip() end

---The same as `avi.pool.server_ip()`.
---
---Available in: request, response.
---@return string? address nil while there is no server
function avi.pool.get_server_ip() end

---Address and port of the flow's server.
---
---Available in: request, response.
---@return string? address nil while there is no server
---@return integer? port a number
function avi.pool.get_server_info() end

---Sends the flow to a pool, or to one server of it. The last successful call of the run counts. A server that is down is not replaced by another one.
---
---Available in: request.
---
---Errors: The pool does not exist or is not attached; it has no such server; a port without a server.
---@param pool string a pool that is attached to the set, or the default
---@param server? string exactly this server of the pool, by address or host name
---@param port? integer|string which of several members on that address, the first if left out
function avi.pool.select(pool, server, port) end

---Sends the flow to a pool group, by priority and ratio.
---
---Available in: request.
---
---Errors: The group does not exist or is not attached.
---@param group string a pool group that is attached to the set, or the default
function avi.poolgroup.select(group) end
