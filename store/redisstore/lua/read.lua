#!lua flags=no-writes
-- Reads documents, counters and parts of indexes of a shard at one moment.
--
-- KEYS[1]  prefix of the shard (keys: see commit.lua)
-- ARGV[1]  number of documents, then their names
-- then     number of counters, then entity and field of each
-- then     number of ranges, then seven arguments each: index, 'score', 'lex' or
--          'member', lower and upper bound as ZRANGEBYSCORE or ZRANGEBYLEX write
--          them or the member and anything, limit, 'asc' or 'desc', '1' when the index is versioned
--
-- Returns  {now, epoch, seq, last, documents, counters, ranges}; epoch is absent
--          (nil) when the shard has no head yet. A document is {version, body},
--          a counter its value, a range {version, member, score, member, …}:
--          absent ones are nil, nil and {nil}.
local P, a = KEYS[1], 1
local function next_()
  a = a + 1
  return ARGV[a - 1]
end

local time = redis.call('TIME')
local head = redis.call('HMGET', P .. ':h', 'epoch', 'seq', 'at', 'last')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
now = math.max(now, tonumber(head[3] or '0')) -- never before an earlier commit

local docs = {}
for i = 1, tonumber(next_()) do
  docs[i] = redis.call('HMGET', P .. ':d:' .. next_(), 'v', 'b')
end

local counters = {}
for i = 1, tonumber(next_()) do
  local entity = next_()
  counters[i] = redis.call('HGET', P .. ':c:' .. entity, next_())
end

local ranges = {}
for i = 1, tonumber(next_()) do
  local name, how, low, high = next_(), next_(), next_(), next_()
  local limit, desc, versioned = next_(), next_() == 'desc', next_() == '1'
  local key, found = P .. ':i:' .. name, {false}
  if versioned then found[1] = redis.call('HGET', P .. ':v', name) end
  if desc and how ~= 'member' then low, high = high, low end
  if how == 'member' then
    local score = redis.call('ZSCORE', key, low)
    if score then found[2], found[3] = low, score end
  elseif how == 'score' then
    local cmd = desc and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE'
    local got = redis.call(cmd, key, low, high, 'WITHSCORES', 'LIMIT', 0, limit)
    for _, v in ipairs(got) do found[#found + 1] = v end
  else
    local cmd = desc and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
    local got = redis.call(cmd, key, low, high, 'LIMIT', 0, limit)
    if #got > 0 then
      local scores = redis.call('ZMSCORE', key, unpack(got))
      for j, m in ipairs(got) do
        found[#found + 1] = m
        found[#found + 1] = scores[j]
      end
    end
  end
  ranges[i] = found
end

return {string.format('%.0f', now), head[1], head[2], head[4], docs, counters, ranges}
