#!lua
-- Checks the guards of one transaction and then makes its changes, or does
-- nothing. The one script that changes a shard's documents, counters and
-- indexes. Loaded a second time with flags=allow-oom, for work that must go on
-- when memory is short.
--
-- KEYS[1]  prefix of the shard, with its hash tag: every key below is built
--          from it and from names the caller has checked
--   :h           head: epoch seq at trimmed n (last entry) w (last wake) c (index version) server
--                last ("<seq> <id> <epoch>" of the last fact) and lives (the
--                epochs, "<epoch> <its first seq> …")
--   :o           outbox: stream of facts, id "<seq+1>-0"
--   :d:<name>    document: hash v (version) b (body) t (set when it expires)
--   :c:<entity>  counters of an entity: hash, fields of value 0 are absent
--   :i:<name>    index: sorted set
--   :v           hash of versioned index -> version, empty indexes are absent
--   :l:<lane>    lane: stream with the group "g", absent when empty
--   :n  :p       hashes of lane -> entries that wait, entries that are out
--   :w           wake stream, one entry for each lane a commit pushed to
--   :x:<call>    first result of a call, or "!<attempt>": attempts up to this
--                one were refused and must not take effect any more
--
-- ARGV[1]  call id, '' for none        ARGV[2]  number of this attempt, rising
-- ARGV[3]  '1' when an earlier attempt may still arrive, else ''
-- ARGV[4]  number of guards            ARGV[5]  number of operations
-- ARGV[6]  the server as open.lua named it to the caller
-- ARGV[7]  number of fact arguments: 0, or 2 for the counter that numbers the
--          fact's series (entity and field, '' for none) and then the pairs to
--          store, the id first. They follow here. Then the guards and the operations, each
--          with as many arguments as WIDTH says:
--   expect name version | own name version: the same, and it is written below |
--   range name version | free index from to except |
--   within entity field lo hi | before ms | epoch epoch
--   put name body ttl | del name | set index member score |
--   rem index member score-or-'' | add entity field delta limit-or-'' |
--   push lane entry | ack lane id
--          Behind them the pairs of a fact that goes directly before the other, if
--          there is one; it is in no series.
--
-- Returns  {'done', seq, series number, at, epoch}, seq -1 without a fact
--          {'again', seq, series number, at, epoch} of the first time
--          {'guard', i, member}  guard i (from 0) failed
--          {'limit', i}          operation i (from 0) would pass its limit
--          {'void'}              this attempt was given up by its caller
--          {'unopened'}          the shard must be opened (again) on this server
local P, ARGV, redis_call, format = KEYS[1], ARGV, redis.call, string.format -- locals are looked up faster
local call, attempt = ARGV[1], ARGV[2]
local guards, ops, facts = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local HEAD, BOUND = P .. ':h', 100000000000000
local WIDTH = {
  expect = 3, own = 3, range = 3, free = 5, within = 5, before = 2, epoch = 2,
  put = 4, del = 2, set = 4, rem = 4, add = 5, push = 3, ack = 3,
}

-- Numbers reach a command or the answer through here only: Lua itself renders
-- those of 15 digits and more with a loss.
local function int(n) return format('%d', n) end

local function number(s, what)
  local n = tonumber(s or '0')
  if not n then error('corrupt ' .. what) end
  return n
end

if call ~= '' then
  local first = redis_call('GET', P .. ':x:' .. call)
  if first and string.sub(first, 1, 1) ~= '!' then
    local seq, series, at, epoch = string.match(first, '^(%S+) (%S+) (%S+) (%S+)$')
    return {'again', seq, series, at, epoch}
  end
  if first and tonumber(string.sub(first, 2)) >= tonumber(attempt) then return {'void'} end
end

-- A refusal is final: when an earlier attempt may still arrive, it must not
-- succeed where this one failed.
local function refuse(...)
  if call ~= '' and ARGV[3] == '1' then
    redis_call('SET', P .. ':x:' .. call, '!' .. attempt, 'PX', '600000')
  end
  return {...}
end

local head = redis_call('HMGET', HEAD, 'epoch', 'seq', 'at', 'n', 'w', 'c', 'server')
local epoch = head[1]
if not epoch or head[7] ~= ARGV[6] then return {'unopened'} end
local seq, at = number(head[2], 'head'), number(head[3], 'head')
local entries, wakes, changes = number(head[4], 'head'), number(head[5], 'head'), number(head[6], 'head')

local time = redis_call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if now > at then at = now end

-- Documents that are written: version, '0' when absent; and whether they expire.
local version, expires = {}, {}
local function look(name)
  if not version[name] then
    local d = redis_call('HMGET', P .. ':d:' .. name, 'v', 't')
    version[name], expires[name] = d[1] or '0', d[2]
  end
  return version[name]
end

-- Counters as read, and what the operations make of them.
local read, sums = {}, {}
local function counter(entity, field)
  local known = read[entity]
  if not known then
    known = {}
    read[entity] = known
  end
  if not known[field] then
    known[field] = number(redis_call('HGET', P .. ':c:' .. entity, field), 'counter')
  end
  return known[field]
end

-- 1. The guards, in order.
local a = 8 + facts
for i = 0, guards - 1 do
  local kind, name, x, y, z = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  if kind == 'expect' then
    if (redis_call('HGET', P .. ':d:' .. name, 'v') or '0') ~= x then return refuse('guard', i, '') end
  elseif kind == 'own' then
    if look(name) ~= x then return refuse('guard', i, '') end
  elseif kind == 'range' then
    if (redis_call('HGET', P .. ':v', name) or '0') ~= x then return refuse('guard', i, '') end
  elseif kind == 'within' then
    local n = counter(name, x)
    if n < tonumber(y) or n > tonumber(z) then return refuse('guard', i, '') end
  elseif kind == 'free' then
    local skip, page = 0
    repeat
      page = redis_call('ZRANGEBYLEX', P .. ':i:' .. name, '[' .. x, '(' .. y, 'LIMIT', int(skip), '100')
      for _, m in ipairs(page) do
        if z == '' or string.sub(m, -#z - 1) ~= ' ' .. z then return refuse('guard', i, m) end
      end
      skip = skip + #page
    until #page < 100
  elseif kind == 'before' then
    if at > tonumber(name) then return refuse('guard', i, '') end
  elseif kind == 'epoch' then
    if name ~= epoch then return refuse('guard', i, '') end
  else
    error('unknown guard')
  end
  a = a + WIDTH[kind]
end

-- 2. Whatever could still fail: types, limits, bounds. Nothing was written
-- yet, and from the first write on nothing fails.
local series = 0
local function add(entity, field, delta)
  local sum = sums[entity]
  if not sum then
    sum = {}
    sums[entity] = sum
  end
  sum[field] = (sum[field] or counter(entity, field)) + delta
  return sum[field]
end
if facts > 0 and ARGV[8] ~= '' then series = add(ARGV[8], ARGV[9], 1) end
local first, exists, typed = a, {}, {}
for i = 0, ops - 1 do
  local kind, name = ARGV[a], ARGV[a + 1]
  if kind == 'put' or kind == 'del' then
    look(name)
  elseif kind == 'set' or kind == 'rem' then
    if not typed[name] then
      redis_call('ZCARD', P .. ':i:' .. name)
      typed[name] = true
    end
  elseif kind == 'add' then
    local n, limit = add(name, ARGV[a + 2], tonumber(ARGV[a + 3])), ARGV[a + 4]
    if n > BOUND or n < -BOUND or (limit ~= '' and n > tonumber(limit)) then return refuse('limit', i) end
  elseif kind == 'push' or kind == 'ack' then
    if exists[name] == nil then
      local t = redis_call('TYPE', P .. ':l:' .. name).ok
      if t ~= 'stream' and t ~= 'none' then error('corrupt lane') end
      exists[name] = t == 'stream'
    end
  else
    error('unknown operation')
  end
  a = a + WIDTH[kind]
end

-- 3. The writes. The fact goes first: its id is the one thing the server
-- itself would refuse. Counters take their sums; the rest keeps its order.
local function emit(from, to, nth)
  seq = seq + 1
  local record = {}
  for i = from, to do record[#record + 1] = ARGV[i] end
  record[#record + 1] = 'n'
  record[#record + 1] = int(nth)
  record[#record + 1] = 'a'
  record[#record + 1] = int(at)
  record[#record + 1] = 'p'
  record[#record + 1] = epoch
  redis_call('XADD', P .. ':o', int(seq + 1) .. '-0', unpack(record))
end
if a <= #ARGV then emit(a, #ARGV, 0) end
if facts > 0 then emit(10, 7 + facts, series) end
for entity, sum in pairs(sums) do
  local set, unset = {}, {}
  for field, n in pairs(sum) do
    if n == 0 then
      unset[#unset + 1] = field
    else
      set[#set + 1] = field
      set[#set + 1] = int(n)
    end
  end
  if #set > 0 then redis_call('HSET', P .. ':c:' .. entity, unpack(set)) end
  if #unset > 0 then redis_call('HDEL', P .. ':c:' .. entity, unpack(unset)) end
end

local dirty, waiting, out, acked, woken = {}, {}, {}, {}, {}
local function bump(t, k, n) t[k] = (t[k] or 0) + n end

a = first
for i = 1, ops do
  local kind, name, x, y, z = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  if kind == 'put' then
    local key = P .. ':d:' .. name
    if expires[name] then redis_call('DEL', key) end
    expires[name] = y ~= ''
    if y == '' then
      redis_call('HSET', key, 'v', int(seq + 1), 'b', x)
    else
      redis_call('HSET', key, 'v', int(seq + 1), 'b', x, 't', '1')
      redis_call('PEXPIRE', key, y)
    end
  elseif kind == 'del' then
    redis_call('DEL', P .. ':d:' .. name)
    expires[name] = false
  elseif kind == 'set' then
    if redis_call('ZADD', P .. ':i:' .. name, 'CH', y, x) == 1 then dirty[name] = true end
  elseif kind == 'rem' then
    local key, there = P .. ':i:' .. name, true
    if y ~= '' then
      local score = redis_call('ZSCORE', key, x)
      there = score and tonumber(score) == tonumber(y)
    end
    if there and redis_call('ZREM', key, x) == 1 then dirty[name] = true end
  elseif kind == 'push' then
    local key = P .. ':l:' .. name
    if not exists[name] then
      -- From 0 and before the first entry: a group that starts later never sees it.
      redis_call('XGROUP', 'CREATE', key, 'g', '0', 'MKSTREAM')
      exists[name] = true
    end
    entries = entries + 1
    redis_call('XADD', key, int(entries) .. '-0', 'e', x)
    bump(waiting, name, 1)
    if not woken[name] then
      woken[name] = true
      wakes = wakes + 1
      -- Trimming costs more than the entry; now and then will do.
      if wakes % 100 == 0 then
        redis_call('XADD', P .. ':w', 'MAXLEN', '~', '10000', int(wakes) .. '-0', 'l', name)
      else
        redis_call('XADD', P .. ':w', int(wakes) .. '-0', 'l', name)
      end
    end
  elseif kind == 'ack' and exists[name] then
    local key = P .. ':l:' .. name
    if redis_call('XACK', key, 'g', x) == 1 then
      redis_call('XDEL', key, x) -- acknowledging alone leaves the entry
      bump(out, name, -1)
      acked[name] = true
    end
  end
  a = a + WIDTH[kind]
end

local function settle(hash, moved)
  for name, n in pairs(moved) do
    if n ~= 0 and redis_call('HINCRBY', hash, name, int(n)) <= 0 then redis_call('HDEL', hash, name) end
  end
end
settle(P .. ':n', waiting)
settle(P .. ':p', out)
for name in pairs(acked) do
  if redis_call('XLEN', P .. ':l:' .. name) == 0 then redis_call('DEL', P .. ':l:' .. name) end
end
local changed = false
for name in pairs(dirty) do
  if string.sub(name, 1, 2) == 'v/' then
    if not changed then
      changed = true
      changes = changes + 1
    end
    if redis_call('EXISTS', P .. ':i:' .. name) == 1 then
      redis_call('HSET', P .. ':v', name, int(changes))
    else
      redis_call('HDEL', P .. ':v', name)
    end
  end
end

local last, when = int(seq), int(at)
redis_call('HSET', HEAD, 'seq', last, 'at', when, 'n', int(entries), 'w', int(wakes), 'c', int(changes))
if facts > 0 then redis_call('HSET', HEAD, 'last', last .. ' ' .. ARGV[11] .. ' ' .. epoch) end
local mine, nth = facts > 0 and last or '-1', int(series)
if call ~= '' then
  redis_call('SET', P .. ':x:' .. call, mine .. ' ' .. nth .. ' ' .. when .. ' ' .. epoch, 'PX', '600000')
end
return {'done', mine, nth, when, epoch}
