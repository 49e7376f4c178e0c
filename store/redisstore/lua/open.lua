#!lua flags=allow-oom
-- Opens a shard on the present life of the server: makes its head when there is
-- none, and begins a new epoch when the head was last opened on another server
-- or on another life of this one, since a restart may have lost commits.
--
-- KEYS[1]  prefix of the shard (keys: see commit.lua)
-- ARGV[1]  the highest sequence the caller knows to be committed, -1 for none
-- ARGV[2]  16 random hex digits for a new epoch
-- ARGV[3]  the id of the fact with that sequence, '' when the caller has none
-- ARGV[4]  '1' when that fact must stand there; else it may be trimmed
--
-- Returns  {'ok', server, epoch, seq, id of the last fact or ''}
--          {'behind', server, epoch or '', seq, ''}  the shard has lost commits
--          the caller knows of; nobody can commit before opening it on this life
--          {'other', server, epoch or '', seq, ''}  the same, and other commits
--          were made in their place
-- Fails    when a key has another type than it must, or the outbox and the
--          head disagree.
local P = KEYS[1]
local HEAD = P .. ':h'

local function info(section, field)
  return string.match(redis.call('INFO', section), field .. ':(%w+)')
end
local server = info('server', 'run_id') .. '/' .. info('replication', 'master_replid')

for key, want in pairs({h = 'hash', o = 'stream', v = 'hash', n = 'hash', p = 'hash', w = 'stream'}) do
  local is = redis.call('TYPE', P .. ':' .. key).ok
  if is ~= want and is ~= 'none' then return redis.error_reply('CORRUPT :' .. key .. ' is a ' .. is) end
end

local head = redis.call('HMGET', HEAD, 'epoch', 'seq', 'server')
local epoch, seq = head[1], tonumber(head[2] or '-1')
local last = -1
if redis.call('EXISTS', P .. ':o') == 1 then
  local about = redis.call('XINFO', 'STREAM', P .. ':o')
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then last = tonumber(string.match(about[i + 1], '^%d+')) - 1 end
  end
end
if last ~= seq then return redis.error_reply('CORRUPT the outbox ends elsewhere than the head says') end

-- The id of a fact, '' when it is not in the outbox.
local function id_of(n)
  local at = string.format('%.0f-0', n + 1)
  local got = redis.call('XRANGE', P .. ':o', at, at)[1]
  for i = 1, got and #got[2] or 0, 2 do
    if got[2][i] == 'i' then return got[2][i + 1] end
  end
  return ''
end

local function refuse(why)
  -- Commits on their way from before this life must not change what is left.
  if epoch and head[3] ~= server then redis.call('HSET', HEAD, 'server', '') end
  return {why, server, epoch or '', string.format('%.0f', seq), ''}
end

local known, id = tonumber(ARGV[1]), ARGV[3]
if seq < known then return refuse('behind') end
if known >= 0 then
  local there = id_of(known)
  if ARGV[4] == '1' and (id == '' or there == '') then return refuse('other') end
  if id ~= '' and there ~= '' and there ~= id then return refuse('other') end
end
if not epoch then
  epoch = '1.' .. ARGV[2]
  redis.call('HSET', HEAD, 'epoch', epoch, 'seq', '-1', 'at', '0', 'trimmed', '-1',
    'n', '0', 'w', '0', 'c', '0', 'server', server)
elseif head[3] ~= server then
  epoch = string.format('%.0f', tonumber(string.match(epoch, '^%d+')) + 1) .. '.' .. ARGV[2]
  redis.call('HSET', HEAD, 'epoch', epoch, 'server', server)
end
return {'ok', server, epoch, string.format('%.0f', seq), id_of(seq)}
