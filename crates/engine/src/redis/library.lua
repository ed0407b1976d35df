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
--   kept    hash: bucket -> 'until:node', for a node that others got in the way of: what it is about to write on these
--           others do not write before. Only who waits for whom depends on it, never what is true
--   writes  hash: transaction -> what it will do here once it is decided, packed
--   fates   hash: transaction -> 'd:until' being decided, 'c:since:cells' committed, 'a:since' aborted
--   settled sorted set: transaction that is committed and finished in all its cells, in short -> when
--   done    sorted set: transaction that was finished here, in short -> when
--   nodes   hash: node -> 'number since' of its last commit in one call, so that it can be repeated
--   counts  hash: what is counted over all rows
--   mark    string: random, the same in all cells; with it goes what tells that all the others are gone. In a Cluster it
--           is no part of the token, as keys of one slot may lie on two servers while it moves: there each cell has its
--           own, and nodes look at it now and then
-- Times are milliseconds of this server's clock; only leases depend on it.

local CHUNK = 1000          -- values unpacked at once: Lua's stack holds 8,000
local BUDGET = 2097152      -- bytes of rows after which an answer ends, about
local STEP = 64             -- rows read at once, so that large ones do not pile up
local MOST_FATES = 256      -- fates told at once
local MOST_OVER = 32768     -- transactions remembered that are over; of more the oldest are forgotten before their time

local run_id, is_cluster

local function is_master()
  return string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) ~= nil
end

-- The key of the mark of the cell that a key is of, and the mark; none where it is gone.
local function mark_key(key) return string.match(key, '^{[^}]*}') .. ':mark' end
local function mark_of(key) return redis.call('GET', mark_key(key)) or '' end

-- What changes whenever this server may have forgotten something: it started, was promoted, or was emptied (then the
-- mark of the cell that this key is of is gone). False on a replica.
local function token(key)
  if not run_id then
    local server = redis.call('INFO', 'server')
    run_id = string.match(server, 'run_id:(%x+)')
    is_cluster = string.find(server, 'redis_mode:cluster', 1, true) ~= nil
  end
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then return false end
  return string.sub(run_id, 1, 16) .. string.sub(string.match(info, 'master_replid:(%x+)'), 1, 16)
    .. (is_cluster and '' or mark_of(key))
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

-- The same of keys that may lie in several slots, which no command takes at once.
local function any_locked_across(keys, first, step)
  for at = first, #keys, step do
    if redis.call('EXISTS', keys[at]) > 0 then return true end
  end
  return false
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

-- A node other than `mine` for which one of these buckets is kept, if there is one.
local function keeper(kept, buckets, mine)
  if #buckets == 0 or redis.call('EXISTS', kept) == 0 then return nil end
  local time = now()
  for from = 1, #buckets, CHUNK do
    local to = math.min(from + CHUNK - 1, #buckets)
    for _, lock in ipairs(redis.call('HMGET', kept, unpack(buckets, from, to))) do
      if lock then
        local till, by = string.match(lock, '^(%d+):(.*)$')
        if by ~= mine and tonumber(till) >= time then return by end
      end
    end
  end
end

-- Keeps these buckets for nobody any more.
local function let_go_of(kept, buckets)
  for from = 1, #buckets, CHUNK do
    redis.call('HDEL', kept, unpack(buckets, from, math.min(from + CHUNK - 1, #buckets)))
  end
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

-- A transaction without the cells in which it is known, and those that it writes: it is another's by no chance.
local function short(transaction)
  return string.match(transaction, '^%x%x:(.*):%x*$') or transaction
end

-- Remembers a transaction that is over, as something written now.
local function remember(over, transaction)
  local name = short(transaction)
  redis.call('ZREM', over, name)
  redis.call('ZADD', over, now(), name)
  if redis.call('ZCARD', over) > MOST_OVER then redis.call('ZREMRANGEBYRANK', over, 0, 0) end
end

-- Whether it is remembered.
local function remembers(over, transaction)
  return redis.call('ZSCORE', over, short(transaction)) and true or false
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
local function fetch(keys, args, of_slots)
  local mark = token(keys[1])
  if not mark then return READONLY end
  local answer, room, at = {mark, {}}, BUDGET, 2
  local cells = math.floor(#keys / 3)
  if args[1] == '1' then answer[2] = redis.call('HMGET', keys[#keys], 'held', 'records', 'scheduled', 'letters') end
  local locked = (of_slots and any_locked_across or any_locked)(keys, 3, 3)
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

-- Adds to a row whose value ends in a signed number of eight bytes, and takes it away where that is 0. It is named by
-- what it is at nothing. The cells of one transaction write at different moments, so that what is taken away may be told
-- before what was added: below 0 it is kept, and not cut, or the sum would be wrong for good.
local function add(rows, none, change)
  local start = string.sub(none, 1, -12)
  local row = redis.call('ZRANGEBYLEX', rows, '[' .. start, '(' .. string.sub(start, 1, -2) .. '\1', 'LIMIT', 0, 1)[1]
  local number = row and #row == #none and struct.unpack('<i8', row, #row - 9) or 0
  if row then redis.call('ZREM', rows, row) end
  number = number + change
  if number ~= 0 then
    redis.call('ZADD', rows, 0, string.sub(none, 1, -11) .. struct.pack('<i8', number) .. string.sub(none, -2))
  end
end

-- Writes what one cell has of a transaction: buckets to bump; rows to remove, by what they begin with; rows to put;
-- rows to add to, and what; counts to change; what to tell. Each list begins with its length.
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
  for i = 1, #values, 2 do add(rows, values[i], tonumber(values[i + 1])) end
  values, at = list(args, at)
  for i = 1, #values, 2 do redis.call('HINCRBY', counts, values[i], values[i + 1]) end
  values, at = list(args, at)
  for i = 1, #values, 2 do redis.call('SPUBLISH', values[i], values[i + 1]) end
  return at
end

-- KEYS: nodes; then rows, stamps, locks, kept, counts of each cell.
-- ARGV: token, node, number; 1 where something is kept for it; for each cell its checks (pairs of bucket and stamp);
-- then for each cell its writes.
-- Answers 'done'; or 'conflict' and nothing was written, with what is held, and the place of its cell among these.
local function commit(keys, args)
  local mark = token(keys[1])
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
  local at = 5
  local cells = (#keys - 1) / 5
  local locked, any_kept = any_locked(keys, 4, 5), any_locked(keys, 5, 5)
  local checked = {}
  for cell = 0, cells - 1 do
    local stamps, locks, kept = keys[cell * 5 + 3], keys[cell * 5 + 4], keys[cell * 5 + 5]
    local buckets, want
    buckets, want, at = pairs_of(args, at)
    local others = locked and held(locks, buckets) or {}
    if #others > 0 then return {'conflict', 'held', others, cell} end
    local by = any_kept and keeper(kept, buckets, args[2])
    if by then return {'conflict', 'held', {by, 0}, cell} end
    if not same(stamps, buckets, want) then return {'conflict', 'stamp'} end
    checked[cell] = buckets
  end
  -- What is written without having been read must not be another's either.
  local begin = at
  for cell = 0, (locked or any_kept) and cells - 1 or -1 do
    local buckets = list(args, at)
    local others = locked and held(keys[cell * 5 + 4], buckets) or {}
    if #others > 0 then return {'conflict', 'held', others, cell} end
    local by = any_kept and keeper(keys[cell * 5 + 5], buckets, args[2])
    if by then return {'conflict', 'held', {by, 0}, cell} end
    for _ = 1, 6 do at = at + tonumber(args[at]) + 1 end
  end
  at = begin
  for cell = 0, cells - 1 do
    if args[4] == '1' then
      let_go_of(keys[cell * 5 + 5], checked[cell])
      let_go_of(keys[cell * 5 + 5], list(args, at))
    end
    at = write(keys[cell * 5 + 2], keys[cell * 5 + 3], keys[cell * 5 + 6], args, at)
  end
  redis.call('HSET', keys[1], args[2], args[3] .. ' ' .. now())
  return {'done'}
end

-- A commit that others got in the way of is done again on what they left. So that this ends, what it rests on and writes
-- is kept for its node from then on, all of it or nothing: others wait with what they write there. A lease ends that
-- where the node goes away; who comes too late because of it is refused by the stamps, as ever.
-- KEYS: stamps, locks, kept of each cell. ARGV: node; milliseconds, or 0 to ask and keep nothing; for each cell its
-- checks, and the buckets that it writes beside those.
-- Answers 'done', and for each cell the buckets that have changed, or are held; or 'conflict', as a commit does.
local function keep(keys, args)
  if not is_master() then return READONLY end
  local node, lease, at = args[1], tonumber(args[2]), 3
  local answer, wanted = {'done'}, {}
  for cell = 0, #keys / 3 - 1 do
    local stamps, locks, kept = keys[cell * 3 + 1], keys[cell * 3 + 2], keys[cell * 3 + 3]
    local buckets, want, written
    buckets, want, at = pairs_of(args, at)
    written, at = list(args, at)
    local by = keeper(kept, buckets, node) or keeper(kept, written, node)
    if by then return {'conflict', 'held', {by, 0}, cell} end
    local moved, is_locked = {}, redis.call('EXISTS', locks) == 1
    for i, stamp in ipairs(stamps_of(stamps, buckets)) do
      if stamp ~= want[i] or (is_locked and redis.call('HEXISTS', locks, buckets[i]) == 1) then
        moved[#moved + 1] = tonumber(buckets[i])
      end
    end
    answer[#answer + 1] = moved
    wanted[cell] = {buckets, written}
  end
  if lease == 0 then return answer end
  local lock = string.format('%.0f', now() + lease) .. ':' .. node
  for cell = 0, #keys / 3 - 1 do
    local kept = keys[cell * 3 + 3]
    for _, buckets in ipairs(wanted[cell]) do
      for from = 1, #buckets, CHUNK do
        local locks = {}
        for i = from, math.min(from + CHUNK - 1, #buckets) do
          local n = #locks
          locks[n + 1], locks[n + 2] = buckets[i], lock
        end
        redis.call('HSET', kept, unpack(locks))
      end
    end
    if redis.call('PTTL', kept) < lease then redis.call('PEXPIRE', kept, lease) end
  end
  return answer
end

-- KEYS: kept of each cell. ARGV: node. What is kept for this node there is not any more.
local function let_go_all(keys, args)
  if not is_master() then return READONLY end
  for _, kept in ipairs(keys) do
    local all, mine = redis.call('HGETALL', kept), {}
    for i = 1, #all, 2 do
      if string.match(all[i + 1], '^%d+:(.*)$') == args[1] then mine[#mine + 1] = all[i] end
    end
    let_go_of(kept, mine)
  end
  return {'done'}
end

-- KEYS: stamps, locks of each cell. ARGV: token, transaction (or nothing); for each cell its checks.
-- Answers 'same', or 'conflict' as above.
local function check(keys, args)
  local mark = token(keys[1])
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
-- cell it writes; then `decide`, which is the moment of the commit; then `finish` to every cell; then `settle`. Whoever
-- meets a lock whose lease is over asks for its fate (`peek`); where that is open still, every cell whether it has
-- `ended`, else to `resolve` it; and says `finish` in its place. What is over is remembered a while: a failover may bring a
-- cell back to where it was locked.

-- KEYS: fates, settled. ARGV: transaction, lease.
local function begin(keys, args)
  if not is_master() then return READONLY end
  if remembers(keys[2], args[1]) then return {'conflict'} end
  local fate = redis.call('HGET', keys[1], args[1])
  if not fate then
    redis.call('HSET', keys[1], args[1], 'd:' .. string.format('%.0f', now() + args[2]))
    return {'done'}
  end
  return {string.sub(fate, 1, 1) == 'd' and 'done' or 'conflict'}
end

-- KEYS: stamps, locks, writes, kept. ARGV: token, transaction, lease, node; checks; writes.
local function prepare(keys, args)
  local mark = token(keys[1])
  if not mark then return READONLY end
  local mine = args[2]
  if redis.call('HEXISTS', keys[3], mine) == 1 then
    redis.call('HSET', keys[3], mine, redis.call('HGET', keys[3], mine))
    return {'done'}
  end
  if mark ~= args[1] then return {'conflict', 'token'} end
  local buckets, want, at = pairs_of(args, 5)
  local others = held(keys[2], buckets)
  if #others > 0 then return {'conflict', 'held', others, 0} end
  local by = keeper(keys[4], buckets, args[4]) or keeper(keys[4], list(args, at), args[4])
  if by then return {'conflict', 'held', {by, 0}, 0} end
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

-- KEYS: fates, settled. ARGV: transaction, its cells. Written again even where it was done, as in a commit.
local function decide(keys, args)
  if not is_master() then return READONLY end
  if remembers(keys[2], args[1]) then
    remember(keys[2], args[1])
    return {'done'}
  end
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

-- KEYS: rows, stamps, locks, counts, writes, done. ARGV: transaction; 1 to do what it was to do, 0 to undo its locks.
-- Answers 1; 0 where it was done before; -1 where this server does not know of it.
local function finish(keys, args)
  if not is_master() then return READONLY end
  local packed = redis.call('HGET', keys[5], args[1])
  if not packed then return remembers(keys[6], args[1]) and 0 or -1 end
  local kept = cmsgpack.unpack(packed)
  if args[2] == '1' then write(keys[1], keys[2], keys[4], kept, 2) end
  local locked = list(kept, 2)
  for from = 1, #locked, CHUNK do
    redis.call('HDEL', keys[3], unpack(locked, from, math.min(from + CHUNK - 1, #locked)))
  end
  redis.call('HDEL', keys[5], args[1])
  if args[2] == '1' then remember(keys[6], args[1]) end
  return 1
end

-- KEYS: done. ARGV: transaction. 1 where it was done here: then it was committed, whatever became of its fate.
local function ended(keys, args)
  if not is_master() then return READONLY end
  return remembers(keys[1], args[1]) and 1 or 0
end

-- What became of it: 'c' committed, 'a' aborted, 'd' to be decided still; nothing where that is not known, or its time
-- is over.
local function fate_of(keys, transaction)
  if remembers(keys[2], transaction) then return 'c' end
  local fate = redis.call('HGET', keys[1], transaction)
  if not fate then return nil end
  local kind, time = string.match(fate, '^(%a):(%d+)')
  if kind ~= 'd' or tonumber(time) >= now() then return kind end
end

-- KEYS: fates, settled. ARGV: transaction. Answers its fate as above, or 'o': open.
local function peek(keys, args)
  if not is_master() then return READONLY end
  return fate_of(keys, args[1]) or 'o'
end

-- KEYS: fates, settled. ARGV: transaction. Answers its fate. One whose is open is aborted: it may yet begin.
local function resolve(keys, args)
  if not is_master() then return READONLY end
  local fate = fate_of(keys, args[1])
  if fate then return fate end
  redis.call('HSET', keys[1], args[1], 'a:' .. string.format('%.0f', now()))
  return 'a'
end

-- KEYS: fates. ARGV: transactions.
local function forget(keys, args)
  if not is_master() then return READONLY end
  return redis.call('HDEL', keys[1], unpack(args))
end

-- KEYS: fates, settled. ARGV: transactions that are finished in all their cells.
local function settle(keys, args)
  if not is_master() then return READONLY end
  for _, transaction in ipairs(args) do
    if string.match(redis.call('HGET', keys[1], transaction) or '', '^c:') then
      redis.call('HDEL', keys[1], transaction)
      remember(keys[2], transaction)
    end
  end
  return #args
end

-- What one cell tells in `stale`.
local function stale_of(all_fates, writes, all_nodes, over_keys, args, time)
  local keep, fates, over = tonumber(args[1]), {}, {}
  local all = redis.call('HGETALL', all_fates)
  for i = 1, #all, 2 do
    local kind, since, cells = string.match(all[i + 1], '^(%a):(%d+):?(.*)$')
    local age = time - tonumber(since)
    if age > (kind == 'c' and 2000 or 0) and (kind ~= 'a' or age > keep) then
      local n = #fates
      fates[n + 1], fates[n + 2], fates[n + 3], fates[n + 4] = all[i], kind, cells, age > keep and 1 or 0
    end
    if #fates >= MOST_FATES * 4 then break end
  end
  for _, transaction in ipairs(redis.call('HKEYS', writes)) do
    local packed = redis.call('HGET', writes, transaction)
    if tonumber(cmsgpack.unpack(packed)[1]) < time then over[#over + 1] = transaction end
    if #over >= MOST_FATES then break end
  end
  for _, key in ipairs(over_keys) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', time - args[2]))
  end
  local nodes = redis.call('HGETALL', all_nodes)
  for i = 1, #nodes, 2 do
    local since = tonumber(string.match(nodes[i + 1], ' (%d+)$'))
    if since and time - since > keep then redis.call('HDEL', all_nodes, nodes[i]) end
  end
  return {fates, over}
end

-- KEYS: fates, writes, nodes, done, settled of each cell. ARGV: how long a fate is remembered; and what is finished.
-- Answers of each cell what was left behind: transaction, state, cells, 1 if it may be forgotten, ...; and of what is
-- prepared there and over: the transactions. Forgets nodes that wrote nothing for so long.
local function stale(keys, args)
  if not is_master() then return READONLY end
  local time, told = now(), {}
  for at = 0, #keys - 5, 5 do
    told[#told + 1] =
      stale_of(keys[at + 1], keys[at + 2], keys[at + 3], {keys[at + 4], keys[at + 5]}, args, time)
  end
  return told
end

-- KEYS: counts of each cell. Answers their sums, as `fetch` tells them.
local function count(keys)
  if not is_master() then return READONLY end
  local sums = {0, 0, 0, 0}
  for _, key in ipairs(keys) do
    for i, value in ipairs(redis.call('HMGET', key, 'held', 'records', 'scheduled', 'letters')) do
      sums[i] = sums[i] + tonumber(value or 0)
    end
  end
  for i, sum in ipairs(sums) do sums[i] = string.format('%.0f', sum) end
  return sums
end

-- Who does what nobody asked for. KEYS: workers (sorted set: node, until when it is taken for alive); parts (hash:
-- part -> who holds it, and 'v', which grows with every change).
-- ARGV: node, its lease, the version it knows; how many parts it lets go, these; 1 to take the one that only one has
-- where nobody does, which that is; of the others that follow it takes so many as nobody has.
-- Answers the version; where that is another, the workers, and the parts with who holds them.
local function attend(keys, args)
  if not is_master() then return READONLY end
  local time, me = now(), args[1]
  local till = string.format('%.0f', time + args[2])
  local was = redis.call('ZSCORE', keys[1], me)
  local newest = redis.call('ZRANGE', keys[1], -1, -1, 'WITHSCORES')[2]
  -- Nobody could renew: all leases begin anew.
  if was and tonumber(newest) < time then
    for _, node in ipairs(redis.call('ZRANGE', keys[1], 0, -1)) do redis.call('ZADD', keys[1], till, node) end
  end
  local changed = redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', '(' .. string.format('%.0f', time)) > 0
  redis.call('ZADD', keys[1], till, me)
  changed = changed or not was
  local values, at = list(args, 4)
  for _, part in ipairs(values) do
    if redis.call('HGET', keys[2], part) == me then
      redis.call('HDEL', keys[2], part)
      changed = true
    end
  end
  local function take(part)
    local by = redis.call('HGET', keys[2], part)
    if by and redis.call('ZSCORE', keys[1], by) then return 0 end
    redis.call('HSET', keys[2], part, me)
    changed = true
    return 1
  end
  if args[at] == '1' then take(args[at + 1]) end
  local left = tonumber(args[at + 2])
  for i = at + 3, #args do
    if left == 0 then break end
    left = left - take(args[i])
  end
  if changed then
    -- Where the book was lost no version of the one before comes again.
    redis.call('HSETNX', keys[2], 'v', till)
    redis.call('HINCRBY', keys[2], 'v', 1)
  end
  local version = tonumber(redis.call('HGET', keys[2], 'v') or 0)
  if version == tonumber(args[3]) then return {version} end
  return {version, redis.call('ZRANGE', keys[1], 0, -1), redis.call('HGETALL', keys[2])}
end

-- KEYS: as above. ARGV: a node that goes. What it holds is nobody's from then on.
local function leave(keys, args)
  if not is_master() then return READONLY end
  redis.call('HINCRBY', keys[2], 'v', 1)
  return redis.call('ZREM', keys[1], args[1])
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

-- KEYS: any of the cell. The token alone.
local function meet(keys)
  return token(keys[1]) or READONLY
end

-- KEYS: mark of each cell; in a Cluster of one. ARGV: a new one. Where they have not all the same it is put in all.
local function mark(keys, args)
  if not is_master() then return READONLY end
  local first, is_whole = mark_of(keys[1]), true
  for _, key in ipairs(keys) do is_whole = is_whole and mark_of(key) == first end
  if is_whole and first ~= '' then return {'done'} end
  for _, key in ipairs(keys) do redis.call('SET', key, args[1]) end
  return {'done'}
end

-- KEYS: mark of a cell, itself declared, so that it is asked for where it is while its slot moves. Answers it, or nothing.
local function marked(keys)
  if not is_master() then return READONLY end
  return mark_of(keys[1])
end

local function register(name, callback, flags)
  redis.register_function{function_name = 'postrider_rows_1_' .. name, callback = callback, flags = flags}
end

-- A function over several cells, and its like for a Cluster, where only the keys of one slot may be declared. There the
-- arguments begin with the others: how many, and these, all of this server's slots.
local function register_with_across(name, callback, flag)
  register(name, callback, {flag})
  register(name .. '_across', function(keys, args)
    local more, at = list(args, 1)
    local all, rest = {}, {}
    for _, key in ipairs(keys) do all[#all + 1] = key end
    for _, key in ipairs(more) do all[#all + 1] = key end
    for i = at, #args do rest[#rest + 1] = args[i] end
    return callback(all, rest, true)
  end, {flag, 'allow-cross-slot-keys'})
end

-- Where memory has run out nothing new is begun but what frees some; what was begun is brought to its end.
register_with_across('fetch', fetch, 'no-writes')
register_with_across('check', check, 'no-writes')
register_with_across('count', count, 'no-writes')
register_with_across('keep', keep, 'allow-oom')
register_with_across('let_go_all', let_go_all, 'allow-oom')
register('meet', meet, {'no-writes'})
register('mark', mark, {'allow-oom'})
register('marked', marked, {'no-writes'})
register('commit', commit, {})
register('begin', begin, {})
register('prepare', prepare, {})
register('commit_freeing', commit, {'allow-oom'})
register('begin_freeing', begin, {'allow-oom'})
register('prepare_freeing', prepare, {'allow-oom'})
register('decide', decide, {'allow-oom'})
register('finish', finish, {'allow-oom'})
register('peek', peek, {'no-writes'})
register('resolve', resolve, {'allow-oom'})
register('forget', forget, {'allow-oom'})
register('settle', settle, {'allow-oom'})
register('ended', ended, {'no-writes'})
register_with_across('stale', stale, 'allow-oom')
register('attend', attend, {'allow-oom'})
register('leave', leave, {'allow-oom'})
register('tell', tell, {'allow-oom'})
