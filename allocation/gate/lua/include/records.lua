--[[
  The working copy: records are read once, changed in memory, and written when the whole batch is decided.

  A decision that is refused or breaks is rolled back by forgetting the records it touched: they are read
  again from what earlier decisions of this batch left, or from Redis. One that breaks while it is packed is undone:
  of what it had packed by then, nothing is written with what its neighbours decide.
]]
-- Redis takes some thousand arguments a command.
local function call_in_chunks(command, key, arguments)
  for first = 1, #arguments, 4000 do
    redis_call(command, key, unpack(arguments, first, math.min(first + 3999, #arguments)))
  end
end

-- Functions of ours, since those of Redis are not there yet while the library loads.
local function pack_plain(record)
  return pack(record)
end

local function unpack_plain(packed)
  return unpack_packed(packed)
end

-- The sequence of the decision that is being packed; nil between decisions.
local packing

-- `version_at` is where a record of this kind keeps the sequence that last changed it.
local function records_of(version_at, pack_record, unpack_record)
  local records = {}
  -- By field: the record as decisions see it; packed as they left it; packed as Redis has it.
  local key, working, changed, stored
  -- The fields that the decision under way has touched, in order.
  local touched, touches, is_touched = {}, 0, {}
  -- The decision that was packed last: its sequence, how many of its fields are packed, which stand in `touched` still,
  -- and what `changed` had of them before. To undo is rare; to keep what is packed in a second step costs every time.
  local packed_sequence, packed_count, undo = nil, 0, {}

  local function forget_touches()
    for index = 1, touches do
      is_touched[touched[index]] = nil
    end
    touches = 0
  end

  function records.start(of_key)
    key, working, changed, stored = of_key, {}, {}, {}
    packed_sequence = nil
    forget_touches()
  end

  -- Read many records in one call, which takes a quarter of the time of one call each.
  function records.prefetch(fields)
    for first = 1, #fields, 4000 do
      local last = math.min(first + 3999, #fields)
      local found = redis_call("HMGET", key, unpack(fields, first, last))
      for index = first, last do
        stored[fields[index]] = found[index - first + 1]
      end
    end
  end

  function records.get(field)
    local record = working[field]
    if record == nil then
      local packed = changed[field] or stored[field]
      if packed == nil then
        packed = redis_call("HGET", key, field)
      end
      record = packed and packed ~= NIL and unpack_record(packed) or false
      working[field] = record
    end
    return record
  end

  function records.packed(field)
    return changed[field]
  end

  function records.touch(field)
    if not is_touched[field] then
      is_touched[field] = true
      touches = touches + 1
      touched[touches] = field
    end
  end

  function records.put(field, record)
    working[field] = record
    records.touch(field)
  end

  function records.roll_back()
    if packing and packed_sequence == packing then
      for index = 1, packed_count do
        working[touched[index]], changed[touched[index]] = nil, undo[index]
      end
      packed_sequence = nil
    end
    for index = 1, touches do
      working[touched[index]] = nil
    end
    forget_touches()
  end

  -- Append the touched records to `parts` as one list of [field, record]; they are what the decision changed.
  function records.pack_touched(parts, count, sequence, subject, packed_subject)
    if touches == 0 then
      parts[count + 1] = EMPTY
      return count + 1
    end
    count = count + 1
    parts[count] = touches == 1 and "\145" or array_header(touches)
    packed_sequence, packed_count = sequence, 0
    for index = 1, touches do
      local field = touched[index]
      local record, packed = working[field], NIL
      if record then
        record[version_at] = sequence
        packed = pack_record(record)
      end
      undo[index], changed[field], packed_count = changed[field], packed, index
      parts[count + 1], parts[count + 2] = PAIR, field == subject and packed_subject or pack(field)
      parts[count + 3] = packed
      count = count + 3
      is_touched[field] = nil
    end
    touches = 0
    return count
  end

  -- What the decisions of this call changed, packed by field.
  function records.changes()
    return key, changed
  end

  return records
end

-- When a reservation or a movement waits for something, in ms: a hold for its end; negative, what is closed for being
-- forgotten; 0 for nothing. Writing must not fail, so what is no number, in a record that is broken, is nothing too.
local function reservation_deadline(record)
  local at_ms = record[5]
  if type(at_ms) ~= "number" then
    return 0
  end
  return record[1] == STATE.HELD and at_ms or -at_ms
end

local function event_deadline(record)
  return -record[3]
end

local function write_records(records)
  local key, changed = records.changes()
  local puts, count, deletes = {}, 0, {}
  for field, packed in pairs(changed) do
    if packed == NIL then
      deletes[#deletes + 1] = field
    else
      puts[count + 1], puts[count + 2] = field, packed
      count = count + 2
    end
  end
  call_in_chunks("HSET", key, puts)
  call_in_chunks("HDEL", key, deletes)
end

local function write_deadlines(records, deadline_of, deadlines_key, prefix)
  local _, changed = records.changes()
  local added, count, removed = {}, 0, {}
  for field, packed in pairs(changed) do
    local deadline_ms = packed ~= NIL and deadline_of(records.get(field)) or 0
    if deadline_ms ~= 0 then
      added[count + 1], added[count + 2] = deadline_ms, prefix .. field
      count = count + 2
    else
      removed[#removed + 1] = prefix .. field
    end
  end
  call_in_chunks("ZADD", deadlines_key, added)
  call_in_chunks("ZREM", deadlines_key, removed)
end

local stock = records_of(VERSION, pack_stock, unpack_stock)
local configuration = records_of(1, pack_plain, unpack_plain)
local reservations = records_of(2, pack_plain, unpack_plain)
local events = records_of(2, pack_plain, unpack_plain)
local moves = {}

local function start_records(keys)
  packing = nil
  stock.start(keys[2])
  reservations.start(keys[3])
  events.start(keys[4])
  configuration.start(keys[5])
  moves.key, moves.pending, moves.decided = keys[7], {}, {}
end

local function roll_back()
  stock.roll_back()
  reservations.roll_back()
  events.roll_back()
  configuration.roll_back()
  packing = nil
  if #moves.decided > 0 then
    moves.decided = {}
  end
end
