#!lua name=postrider_rows_1
-- The rows of Postrider in Redis: what has to happen at one moment happens here, and nothing else. What rows mean is
-- decided elsewhere; here they are bytes. The names end in the version of this protocol: nodes of two versions can
-- work side by side, each with its own functions, as long as the rows are the same.
--
-- A cell is one hash slot. Its keys:
--   rows    sorted set, all scores 0: one member for each row, in the order of their bytes; its last two bytes are
--           the bucket of its owner's stamp
--   stamps  string: a number of 32 bits for each bucket, which grows with every change of what its owners have
--   locks   hash: bucket -> 'until:transaction', while a transaction over several calls is under way
--   writes  hash: transaction -> what it will do here once it is decided, packed
--   fates   hash: transaction -> 'd:until' being decided, 'c:since:cells' committed, 'a:since' aborted
--   nodes   hash: node -> 'number since' of its last commit in one call, so that it can be repeated
--   counts  hash: what is counted over all rows
-- Times are milliseconds of this server's clock; only leases depend on it.

local CHUNK = 1000          -- values unpacked at once: Lua's stack holds 8,000
local BUDGET = 2097152      -- bytes of rows after which an answer ends, about
local STEP = 64             -- rows read at once, so that large ones do not pile up
local MOST_FATES = 256      -- fates told at once

local run_id

-- What changes whenever this server may have forgotten something: it started, or was promoted. False on a replica.
local function token()
  if not run_id then
    run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  end
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then return false end
  return string.sub(run_id, 1, 16) .. string.sub(string.match(info, 'master_replid:(%x+)'), 1, 16)
end

local READONLY = {err = 'READONLY this server is a replica: its rows may be old'}

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The stamps of these buckets, in order.
local function stamps_of(key, buckets)
  local stamps = {}
  for from = 1, #buckets, CHUNK do
    local to, ask = math.min(from + CHUNK - 1, #buckets), {}
    for at = from, to do
      local n = #ask
      ask[n + 1], ask[n + 2], ask[n + 3] = 'GET', 'u32', '#' .. buckets[at]
    end
    for _, stamp in ipairs(redis.call('BITFIELD_RO', key, unpack(ask))) do
      stamps[#stamps + 1] = stamp
    end
  end
  return stamps
end

-- Whether anything is locked in any of the cells whose locks are at `first`, and every `step` from there: hardly ever.
local function any_locked(keys, first, step)
  local locks = {}
  for at = first, #keys, step do locks[#locks + 1] = keys[at] end
  return #locks > 0 and redis.call('EXISTS', unpack(locks)) > 0
end

-- Those of these buckets that a transaction other than `mine` holds: transaction, 1 if its lease is over, ...
local function held(locks, buckets, mine)
  local found = {}
  if #buckets == 0 or redis.call('EXISTS', locks) == 0 then return found end
  local time = now()
  for from = 1, #buckets, CHUNK do
    local to = math.min(from + CHUNK - 1, #buckets)
    for _, lock in ipairs(redis.call('HMGET', locks, unpack(buckets, from, to))) do
      if lock then
        local till, by = string.match(lock, '^(%d+):(.*)$')
        if by ~= mine then
          found[#found + 1] = by
          found[#found + 1] = tonumber(till) < time and 1 or 0
        end
      end
    end
  end
  return found
end

-- The transactions that hold anything here though their lease is over, as `held` tells them. A row that one of them is
-- to put yet is found by no scan, whoever may own it; those under way are not waited for, as none of them is answered
-- before it is finished, and there may always be some.
local function left_over(locks)
  local found, known, time = {}, {}, now()
  for _, lock in ipairs(redis.call('HVALS', locks)) do
    local till, by = string.match(lock, '^(%d+):(.*)$')
    if not known[by] and tonumber(till) < time then
      known[by] = true
      found[#found + 1] = by
      found[#found + 1] = 1
    end
  end
  return found
end

-- `count` numbers from `args`, and where they end.
local function list(args, at)
  local count, values = tonumber(args[at]), {}
  for i = 1, count do values[i] = args[at + i] end
  return values, at + count + 1
end

-- Reads one range: 1 if these are all its rows, 0 if there may be more; then the rows.
local function range(rows, backward, min, max, limit, room)
  if backward then
    local found = redis.call('ZREVRANGEBYLEX', rows, max, min, 'LIMIT', 0, limit)
    return found, #found < limit
  end
  local found, bytes, step = {}, 0, STEP
  while true do
    local want = math.min(step, limit - #found)
    local got = redis.call('ZRANGEBYLEX', rows, min, max, 'LIMIT', 0, want)
    for _, row in ipairs(got) do
      found[#found + 1] = row
      bytes = bytes + #row
    end
    if #got < want then return found, true end
    if #found == limit or bytes >= room then return found, false end
    min = '(' .. got[#got]
    -- As many as fit in what is left, judged by those so far.
    step = math.max(1, math.min(CHUNK, math.floor((room - bytes) * #found / bytes)))
  end
end

-- KEYS: rows, stamps, locks of each cell; then the counts, if wanted.
-- ARGV: 1 if the counts are wanted; for each cell: how many buckets, these; how many ranges, and of each:
--   'f' forward, 'b' backward; 'g' and 'h' the same over rows of many owners; least, end, limit.
-- Answers: token; counts; for each cell: its stamps, what is held, and of each range: 1 (all of it), 0 (there may be
--   more) or 2 (not read: there was no room); its rows, in 'g' and 'h' each followed by its stamp. Of those, as they
--   go on only where each cell has told something, one row is told even where there is no room.
local function fetch(keys, args)
  local mark = token()
  if not mark then return READONLY end
  local answer, room, at = {mark, {}}, BUDGET, 2
  local cells = math.floor(#keys / 3)
  if args[1] == '1' then answer[2] = redis.call('HMGET', keys[#keys], 'held', 'records', 'scheduled', 'letters') end
  local locked = any_locked(keys, 3, 3)
  for cell = 0, cells - 1 do
    local rows, stamps, locks = keys[cell * 3 + 1], keys[cell * 3 + 2], keys[cell * 3 + 3]
    local buckets, count
    buckets, at = list(args, at)
    local told = {stamps_of(stamps, buckets), locked and held(locks, buckets) or {}}
    count = tonumber(args[at])
    at = at + 1
    for _ = 1, count do
      local kind, limit = args[at], tonumber(args[at + 3])
      local many = kind == 'g' or kind == 'h'
      if many and room <= 0 then limit = 1 end
      if room <= 0 and not many then
        told[#told + 1] = {2}
      else
        local backward = kind == 'b' or kind == 'h'
        local found, whole = range(rows, backward, args[at + 1], args[at + 2], limit, math.max(room, 1))
        local out = {whole and 1 or 0}
        for i, row in ipairs(found) do
          room = room - #row
          if many then out[i * 2] = row else out[i + 1] = row end
        end
        if many and locked then
          for _, value in ipairs(left_over(locks)) do table.insert(told[2], value) end
        end
        if many and #found > 0 then
          local of = {}
          for i, row in ipairs(found) do
            local high, low = string.byte(row, -2, -1)
            of[i] = high * 256 + low
          end
          for i, stamp in ipairs(stamps_of(stamps, of)) do out[i * 2 + 1] = stamp end
          if locked then
            for _, value in ipairs(held(locks, of)) do table.insert(told[2], value) end
          end
        end
        told[#told + 1] = out
      end
      at = at + 4
    end
    answer[#answer + 1] = told
  end
  return answer
end

-- Reads `bucket, stamp` pairs: the buckets, and the stamps by the same places; and where they end.
local function pairs_of(args, at)
  local count, buckets, stamps = tonumber(args[at]), {}, {}
  for i = 1, count do
    buckets[i], stamps[i] = args[at + i * 2 - 1], tonumber(args[at + i * 2])
  end
  return buckets, stamps, at + count * 2 + 1
end

-- Whether these stamps are what they were; and what others hold of these buckets.
local function same(stamps, buckets, want)
  for i, stamp in ipairs(stamps_of(stamps, buckets)) do
    if stamp ~= want[i] then return false end
  end
  return true
end

-- Writes what one cell has of a transaction: buckets to bump; rows to remove, by what they begin with; rows to put;
-- counts to change; what to tell. Each list begins with its length.
local function write(rows, stamps, counts, args, at)
  local values
  values, at = list(args, at)
  for from = 1, #values, CHUNK do
    local ask = {}
    for i = from, math.min(from + CHUNK - 1, #values) do
      local n = #ask
      ask[n + 1], ask[n + 2], ask[n + 3], ask[n + 4] = 'INCRBY', 'u32', '#' .. values[i], 1
    end
    redis.call('BITFIELD', stamps, unpack(ask))
  end
  values, at = list(args, at)
  for _, start in ipairs(values) do
    redis.call('ZREMRANGEBYLEX', rows, '[' .. start, '(' .. string.sub(start, 1, -2) .. '\1')
  end
  values, at = list(args, at)
  for from = 1, #values, CHUNK do
    local put = {}
    for i = from, math.min(from + CHUNK - 1, #values) do
      local n = #put
      put[n + 1], put[n + 2] = 0, values[i]
    end
    redis.call('ZADD', rows, unpack(put))
  end
  values, at = list(args, at)
  for i = 1, #values, 2 do redis.call('HINCRBY', counts, values[i], values[i + 1]) end
  values, at = list(args, at)
  for i = 1, #values, 2 do redis.call('SPUBLISH', values[i], values[i + 1]) end
  return at
end

-- KEYS: nodes; then rows, stamps, locks, counts of each cell.
-- ARGV: token, node, number; for each cell its checks (pairs of bucket and stamp); then for each cell its writes.
-- Answers 'done'; or 'conflict' and nothing was written, with what is held, and the place of its cell among these.
local function commit(keys, args)
  local mark = token()
  if not mark then return READONLY end
  local last = redis.call('HGET', keys[1], args[2])
  local number = tonumber(args[3])
  local before = last and tonumber(string.match(last, '^%d+')) or 0
  -- Written again even where it was done: what confirms writes looks at the last write of a connection.
  if before == number then
    redis.call('HSET', keys[1], args[2], args[3] .. ' ' .. now())
    return {'done'}
  end
  if before > number then return {'conflict', 'late'} end
  if mark ~= args[1] then return {'conflict', 'token'} end
  local at = 4
  local cells = (#keys - 1) / 4
  local locked = any_locked(keys, 4, 4)
  for cell = 0, cells - 1 do
    local stamps, locks = keys[cell * 4 + 3], keys[cell * 4 + 4]
    local buckets, want
    buckets, want, at = pairs_of(args, at)
    local others = locked and held(locks, buckets) or {}
    if #others > 0 then return {'conflict', 'held', others, cell} end
    if not same(stamps, buckets, want) then return {'conflict', 'stamp'} end
  end
  -- What is written without having been read must not be another's either.
  local begin = at
  for cell = 0, locked and cells - 1 or -1 do
    local buckets = list(args, at)
    local others = held(keys[cell * 4 + 4], buckets)
    if #others > 0 then return {'conflict', 'held', others, cell} end
    for _ = 1, 5 do at = at + tonumber(args[at]) + 1 end
  end
  at = begin
  for cell = 0, cells - 1 do
    at = write(keys[cell * 4 + 2], keys[cell * 4 + 3], keys[cell * 4 + 5], args, at)
  end
  redis.call('HSET', keys[1], args[2], args[3] .. ' ' .. now())
  return {'done'}
end

-- KEYS: stamps, locks of each cell. ARGV: token, transaction (or nothing); for each cell its checks.
-- Answers 'same', or 'conflict' as above.
local function check(keys, args)
  local mark = token()
  if not mark then return READONLY end
  if mark ~= args[1] then return {'conflict', 'token'} end
  local at = 3
  for cell = 0, #keys / 2 - 1 do
    local buckets, want
    buckets, want, at = pairs_of(args, at)
    local others = held(keys[cell * 2 + 2], buckets, args[2])
    if #others > 0 then return {'conflict', 'held', others, cell} end
    if not same(keys[cell * 2 + 1], buckets, want) then return {'conflict', 'stamp'} end
  end
  return {'same'}
end

-- A transaction over several calls. Its node says `begin` to the cell that will know its fate, and `prepare` to every
-- cell it writes; then `decide`, which is the moment of the commit; then `finish` to every cell; then `forget`. Whoever
-- meets a lock whose lease is over asks `resolve` for the fate, and says `finish` in its place.

-- KEYS: fates. ARGV: transaction, lease.
local function begin(keys, args)
  if not token() then return READONLY end
  local fate = redis.call('HGET', keys[1], args[1])
  if not fate then
    redis.call('HSET', keys[1], args[1], 'd:' .. string.format('%.0f', now() + args[2]))
    return {'done'}
  end
  return {string.sub(fate, 1, 1) == 'd' and 'done' or 'conflict'}
end

-- KEYS: stamps, locks, writes. ARGV: token, transaction, lease; checks; writes.
local function prepare(keys, args)
  local mark = token()
  if not mark then return READONLY end
  local mine = args[2]
  if redis.call('HEXISTS', keys[3], mine) == 1 then
    redis.call('HSET', keys[3], mine, redis.call('HGET', keys[3], mine))
    return {'done'}
  end
  if mark ~= args[1] then return {'conflict', 'token'} end
  local buckets, want, at = pairs_of(args, 4)
  local others = held(keys[2], buckets)
  if #others > 0 then return {'conflict', 'held', others, 0} end
  if not same(keys[1], buckets, want) then return {'conflict', 'stamp'} end
  local written = list(args, at)
  others = held(keys[2], written)
  if #others > 0 then return {'conflict', 'held', others, 0} end
  local till = string.format('%.0f', now() + args[3])
  for from = 1, #written, CHUNK do
    local locks = {}
    for i = from, math.min(from + CHUNK - 1, #written) do
      local n = #locks
      locks[n + 1], locks[n + 2] = written[i], till .. ':' .. mine
    end
    redis.call('HSET', keys[2], unpack(locks))
  end
  local kept = {till}
  for i = at, #args do kept[#kept + 1] = args[i] end
  redis.call('HSET', keys[3], mine, cmsgpack.pack(kept))
  return {'done'}
end

-- KEYS: fates. ARGV: transaction, its cells.
local function decide(keys, args)
  if not token() then return READONLY end
  local fate = redis.call('HGET', keys[1], args[1])
  local kind = fate and string.sub(fate, 1, 1)
  if kind == 'd' then
    fate = 'c:' .. string.format('%.0f', now()) .. ':' .. args[2]
  elseif kind ~= 'c' then
    return {'conflict'}
  end
  redis.call('HSET', keys[1], args[1], fate)
  return {'done'}
end

-- KEYS: rows, stamps, locks, counts, writes. ARGV: transaction; 1 to do what it was to do, 0 to undo its locks.
-- Answers 1; 0 where that was done before.
local function finish(keys, args)
  if not token() then return READONLY end
  local packed = redis.call('HGET', keys[5], args[1])
  if not packed then return 0 end
  local kept = cmsgpack.unpack(packed)
  if args[2] == '1' then write(keys[1], keys[2], keys[4], kept, 2) end
  local locked = list(kept, 2)
  for from = 1, #locked, CHUNK do
    redis.call('HDEL', keys[3], unpack(locked, from, math.min(from + CHUNK - 1, #locked)))
  end
  redis.call('HDEL', keys[5], args[1])
  return 1
end

-- KEYS: fates. ARGV: transaction.
-- Answers 'c' committed, 'a' aborted, 'd' to be decided still. One without a fate is aborted: it may yet begin.
local function resolve(keys, args)
  if not token() then return READONLY end
  local fate = redis.call('HGET', keys[1], args[1])
  if fate then
    local kind, time = string.match(fate, '^(%a):(%d+)')
    if kind ~= 'd' then return kind end
    if tonumber(time) >= now() then return 'd' end
  end
  redis.call('HSET', keys[1], args[1], 'a:' .. string.format('%.0f', now()))
  return 'a'
end

-- KEYS: fates. ARGV: transactions.
local function forget(keys, args)
  if not token() then return READONLY end
  return redis.call('HDEL', keys[1], unpack(args))
end

-- KEYS: fates, writes, nodes. ARGV: how long a fate is remembered.
-- Answers what was left behind: transaction, state, cells, 1 if it may be forgotten, ...; and of what is prepared here
-- and over: the transactions. Forgets nodes that wrote nothing for so long.
local function stale(keys, args)
  if not token() then return READONLY end
  local time, keep, fates, over = now(), tonumber(args[1]), {}, {}
  local all = redis.call('HGETALL', keys[1])
  for i = 1, #all, 2 do
    local kind, since, cells = string.match(all[i + 1], '^(%a):(%d+):?(.*)$')
    local age = time - tonumber(since)
    if age > (kind == 'c' and 2000 or 0) and (kind ~= 'a' or age > keep) then
      local n = #fates
      fates[n + 1], fates[n + 2], fates[n + 3], fates[n + 4] = all[i], kind, cells, age > keep and 1 or 0
    end
    if #fates >= MOST_FATES * 4 then break end
  end
  for _, transaction in ipairs(redis.call('HKEYS', keys[2])) do
    local packed = redis.call('HGET', keys[2], transaction)
    if tonumber(cmsgpack.unpack(packed)[1]) < time then over[#over + 1] = transaction end
    if #over >= MOST_FATES then break end
  end
  local nodes = redis.call('HGETALL', keys[3])
  for i = 1, #nodes, 2 do
    local since = tonumber(string.match(nodes[i + 1], ' (%d+)$'))
    if since and time - since > keep then redis.call('HDEL', keys[3], nodes[i]) end
  end
  return {fates, over}
end

-- KEYS: the lease. ARGV: node, milliseconds. 1 where the node has it now.
local function hold(keys, args)
  if not token() then return READONLY end
  local by = redis.call('GET', keys[1])
  if by and by ~= args[1] then return 0 end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return 1
end

-- KEYS: the lease. ARGV: node.
local function let_go(keys, args)
  if not token() then return READONLY end
  if redis.call('GET', keys[1]) ~= args[1] then return 0 end
  return redis.call('DEL', keys[1])
end

-- KEYS: any of the cell. ARGV: groups of what is told alike: how it ends; how many follow; channels, and how it begins
-- there. What nobody hears is not said. Answers how many were told.
local function tell(keys, args)
  local at, told = 1, 0
  while at < #args do
    local tail, values = args[at]
    values, at = list(args, at + 1)
    local channels = {}
    for i = 1, #values, 2 do channels[#channels + 1] = values[i] end
    for from = 1, #channels, CHUNK do
      local to = math.min(from + CHUNK - 1, #channels)
      local heard = redis.call('PUBSUB', 'SHARDNUMSUB', unpack(channels, from, to))
      for i = from, to do
        if heard[(i - from) * 2 + 2] > 0 then
          redis.call('SPUBLISH', channels[i], values[i * 2] .. tail)
          told = told + 1
        end
      end
    end
  end
  return told
end

-- ARGV: nothing. The token alone.
local function meet()
  return token() or READONLY
end

local function register(name, callback, flags)
  redis.register_function{function_name = 'postrider_rows_1_' .. name, callback = callback, flags = flags}
end

-- Where memory has run out nothing new is begun but what frees some; what was begun is brought to its end.
register('fetch', fetch, {'no-writes'})
register('check', check, {'no-writes'})
register('meet', meet, {'no-writes'})
register('commit', commit, {})
register('begin', begin, {})
register('prepare', prepare, {})
register('commit_freeing', commit, {'allow-oom'})
register('begin_freeing', begin, {'allow-oom'})
register('prepare_freeing', prepare, {'allow-oom'})
register('decide', decide, {'allow-oom'})
register('finish', finish, {'allow-oom'})
register('resolve', resolve, {'allow-oom'})
register('forget', forget, {'allow-oom'})
register('stale', stale, {'allow-oom'})
register('hold', hold, {'allow-oom'})
register('let_go', let_go, {'allow-oom'})
register('tell', tell, {'allow-oom'})
