--[[
  Turn a decision into a journal entry, and in the end write every entry and record.

  An entry is packed [kind, at ms, subject, reservations, stock, events, configuration, moves, detail]; the
  four in the middle are lists of [field, record] as they are after the decision, nil where one was forgotten.
  Replaying the entries in order therefore rebuilds the gate, and nothing has to be decided again.

  Each entry is hashed together with the hash before it. The entries of one call are one item of the stream, with
  the sequence of each as its field; the item's id names the last of them. To write an item each takes longer, and
  so does every string that is made on the way: Lua reads each byte of a string once more to find its equal.

  Numbers below 1e14 become text exactly; sequences and milliseconds stay far under that.
]]
local journal = {}
-- The parts of the entry in the making; one table for all, since making one an entry costs more than it tells.
local parts = {}

local function start_journal(sequence, hash)
  journal.sequence, journal.hash, journal.count = sequence, hash, 0
  journal.entries, journal.fields, journal.heads = {}, {}, {}
end

local function keep_moves()
  for _, move in ipairs(moves.decided) do
    moves.pending[#moves.pending + 1] = move
  end
  moves.decided = {}
end

-- The first two values of an entry, which all of one kind share in one call.
local function entry_head(kind)
  journal.heads[kind] = "\153" .. pack(kind, call.now_ms)
  return journal.heads[kind]
end

-- Everything that was touched since the last decision becomes one entry, or nothing of it is kept.
local function record_decision(kind, subject, detail)
  local sequence = journal.sequence + 1
  local packed_subject = pack(subject)
  packing = sequence
  parts[1], parts[2] = journal.heads[kind] or entry_head(kind), packed_subject
  local count = reservations.pack_touched(parts, 2, sequence, subject, packed_subject)
  count = stock.pack_touched(parts, count, sequence)
  count = events.pack_touched(parts, count, sequence, subject, packed_subject)
  count = configuration.pack_touched(parts, count, sequence)
  parts[count + 1] = #moves.decided > 0 and pack(moves.decided) or EMPTY
  parts[count + 2] = detail and pack(detail) or NIL
  local body = concat(parts, "", 1, count + 2)
  local hash = sha1hex(journal.hash .. body)

  -- After this point the decision must be kept.
  packing = nil
  if #moves.decided > 0 then
    keep_moves()
  end
  journal.sequence, journal.hash = sequence, hash
  count = journal.count + 1
  journal.count, journal.entries[count] = count, body
  journal.fields[2 * count - 1], journal.fields[2 * count] = sequence, body
  return sequence
end

local function write_moves()
  for _, move in ipairs(moves.pending) do
    local forget, member = move[1], move[2]
    if forget ~= "" then
      redis.call("ZREMRANGEBYLEX", moves.key, "[" .. forget, "(" .. member)
    else
      redis.call("ZADD", moves.key, 0, member)
    end
  end
end

-- The journal comes first: if Redis refuses it, nothing has changed. A call that decided nothing writes nothing, but
-- for the turns that it put off.
local function write_everything(durable)
  local keys, epoch = call.keys, call.epoch
  if journal.count == 0 then
    return call_in_chunks("ZADD", keys[6], call.put_off)
  end
  redis_call("XADD", keys[8], epoch .. "-" .. journal.sequence, unpack(journal.fields))
  call_in_chunks("ZADD", keys[6], call.put_off)
  redis_call("HSET", keys[1], "sequence", journal.sequence, "hash", journal.hash, "last_ms", call.now_ms)
  write_records(stock)
  write_records(configuration)
  write_records(reservations)
  write_records(events)
  write_deadlines(reservations, reservation_deadline, keys[6], "r")
  write_deadlines(events, event_deadline, keys[6], "e")
  write_moves()
  redis_call("XTRIM", keys[8], "MINID", "~", epoch .. "-" .. durable + 1)
end
