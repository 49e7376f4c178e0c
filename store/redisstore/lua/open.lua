#!lua flags=allow-oom
-- Opens a shard on the present life of the server: makes its head when there is
-- none, and begins a new epoch when the head was last opened on another server
-- or on another life of this one, since a restart may have lost commits.
--
-- An epoch is one life and has a name nobody can guess, so epoch and sequence
-- name one fact of one history, also when it was trimmed. The head lists which
-- epoch began with which sequence.
--
-- KEYS[1]  prefix of the shard (keys: see commit.lua)
-- ARGV[1]  the highest sequence the caller knows to be committed, -1 for none
-- ARGV[2]  16 random hex digits for a new epoch
-- ARGV[3]  the id of the fact with that sequence, '' when the caller has none
-- ARGV[4]  the epoch it was committed in, '' when the caller does not know
--
-- Returns  {'ok', server, epoch, seq, last as in the head or ''}
--          {'behind', server, epoch or '', seq, ''}  the shard has lost commits
--          the caller knows of; nobody can commit before opening it on this life
--          {'other', server, epoch or '', seq, ''}  the same, and other commits
--          were made in their place
--          {'unknown', server, epoch or '', seq, ''}  it cannot be told whether
--          that fact was committed here: it is trimmed, and its epoch forgotten
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

local head = redis.call('HMGET', HEAD, 'epoch', 'seq', 'server', 'trimmed', 'last', 'lives')
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

-- The epochs, oldest first, and the sequence each began with. Without a list an
-- earlier version has written the shard: '-' stands for all its epochs. When the
-- list does not end with the present epoch that version began it, and nobody
-- knows with which sequence.
local KEEP = 256
local lives = {}
for name, from in string.gmatch(head[6] or '', '(%S+) (%d+)') do lives[#lives + 1] = {name, tonumber(from)} end
if epoch and #lives == 0 then
  lives = {{'-', 0}, {epoch, seq + 1}}
elseif epoch and lives[#lives][1] ~= epoch then
  lives = {{epoch, seq + 1}}
end

-- The epoch a fact was committed in, '' when it is forgotten.
local function epoch_of(n)
  for i = #lives, 1, -1 do
    if lives[i][2] <= n then return lives[i][1] end
  end
  return ''
end

local function refuse(why)
  -- Commits on their way from before this life must not change what is left.
  if epoch and head[3] ~= server then redis.call('HSET', HEAD, 'server', '') end
  return {why, server, epoch or '', string.format('%.0f', seq), ''}
end

local known, id, was = tonumber(ARGV[1]), ARGV[3], ARGV[4]
if seq < known then return refuse('behind') end
if known >= 0 then
  local there, of = id_of(known), epoch_of(known)
  if id ~= '' and there ~= '' then
    if there ~= id then return refuse('other') end
  elseif of == '-' then
    -- That version trimmed the newest fact too, and nothing after it.
    if known < tonumber(head[4] or '-1') then return refuse('unknown') end
  elseif of == '' or was == '' then
    return refuse('unknown')
  elseif of ~= was then
    return refuse('other')
  end
end

-- Begins an epoch with the next fact. One that had none is forgotten.
local function begin(name)
  epoch = name
  if #lives > 0 and lives[#lives][2] == seq + 1 then lives[#lives] = nil end
  lives[#lives + 1] = {name, seq + 1}
end
local fields = {}
if not epoch then
  begin('1.' .. ARGV[2])
  fields = {'seq', '-1', 'at', '0', 'trimmed', '-1', 'n', '0', 'w', '0', 'c', '0'}
elseif head[3] ~= server then
  begin(string.format('%.0f', tonumber(string.match(epoch, '^%d+')) + 1) .. '.' .. ARGV[2])
end
local list = {}
for i = math.max(1, #lives - KEEP + 1), #lives do
  list[#list + 1] = lives[i][1] .. ' ' .. string.format('%.0f', lives[i][2])
end
list = table.concat(list, ' ')
if list ~= head[6] or head[3] ~= server then
  redis.call('HSET', HEAD, 'epoch', epoch, 'server', server, 'lives', list, unpack(fields))
end
return {'ok', server, epoch, string.format('%.0f', seq), head[5] or ''}
