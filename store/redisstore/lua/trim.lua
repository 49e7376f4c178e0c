#!lua flags=allow-oom
-- Forgets the oldest facts of a shard, at most a number at a time.
--
-- KEYS[1]  prefix of the shard (keys: see commit.lua)
-- ARGV[1]  highest sequence to forget   ARGV[2]  how many at most
-- ARGV[3]  the server as open.lua named it to the caller
--
-- Returns  1 when more remain to be forgotten, 0 when not, -1 when the shard
--          must be opened (again) on this server
local P = KEYS[1]
local head = redis.call('HMGET', P .. ':h', 'seq', 'trimmed', 'server')
if head[3] ~= ARGV[3] then return -1 end
local seq, done = tonumber(head[1] or '-1'), tonumber(head[2] or '-1')
local upto = math.min(tonumber(ARGV[1]), seq)
local to = math.min(upto, done + tonumber(ARGV[2]))
if to <= done then return 0 end
redis.call('XTRIM', P .. ':o', 'MINID', string.format('%.0f-0', to + 2))
redis.call('HSET', P .. ':h', 'trimmed', string.format('%.0f', to))
return to < upto and 1 or 0
