--[[
  Apply one stock movement, once, whatever the order in which movements arrive.

  What is on hand is the newest count plus every change that happened after it, so a late change from before
  the count changes nothing, and a late count keeps the changes from after it. The changes of the last 30 days
  are kept for that, one member each in the sorted set of moves: SKU, location, time, sequence and units.

  Command: {op, event key, fingerprint, kind, occurred at ms or 0, reservation id, {{sku, location, quantity,
  source, to}}}
  Outcomes: APPLIED, DUPLICATE, IDEMPOTENCY_MISMATCH, UNKNOWN_*, COUNT_TOO_OLD
]]
local MOVES_KEPT_MS = 30 * 24 * 3600 * 1000
local BUCKET = { damaged = DAMAGED, quality_control = QUALITY_CONTROL }

local function pool_prefix(sku, location)
  return sku .. "\0" .. location .. "\0"
end

local function at(prefix, at_ms)
  return prefix .. string.format("%015.0f", at_ms)
end

local function forget_moves(prefix, before_ms)
  moves.decided[#moves.decided + 1] = { prefix, at(prefix, math.max(0, before_ms)) }
end

-- The sum of the changes of one pool after a moment, also of those that this batch has yet to write.
local function changes_after(prefix, after_ms)
  local first = at(prefix, after_ms + 1)
  local total = 0
  local function add(member)
    total = total + tonumber(string.match(member, "(%-?%d+)$"))
  end
  for _, member in ipairs(redis.call("ZRANGEBYLEX", moves.key, "[" .. first, "[" .. prefix .. "\255")) do
    add(member)
  end
  for _, list in ipairs({ moves.pending, moves.decided }) do
    for _, move in ipairs(list) do
      if move[1] == "" and string.sub(move[2], 1, #prefix) == prefix and move[2] >= first then
        add(move[2])
      end
    end
  end
  return total
end

local function change_on_hand(sku, location, quantity, occurred_at_ms)
  local record, pool = pool_of(sku, location)
  stock.touch(sku)
  if occurred_at_ms > 0 and occurred_at_ms <= record[pool + COUNTED_AT_MS] then
    return
  end
  local prefix = pool_prefix(sku, location)
  local at_ms = occurred_at_ms > 0 and occurred_at_ms or math.max(call.now_ms, record[pool + COUNTED_AT_MS] + 1)
  record[pool + ON_HAND] = record[pool + ON_HAND] + quantity
  moves.decided[#moves.decided + 1] = { "", at(prefix, at_ms) .. "\0"
    .. string.format("%.0f.%d", journal.sequence + 1, #moves.decided) .. "\0" .. string.format("%.0f", quantity) }
  forget_moves(prefix, call.now_ms - MOVES_KEPT_MS)
end

-- A count without a time is true as it arrives: it ends everything that came before.
local function count(sku, location, quantity, as_of_ms)
  local record, pool = pool_of(sku, location)
  stock.touch(sku)
  if as_of_ms > 0 and as_of_ms <= record[pool + COUNTED_AT_MS] then
    return
  end
  local prefix = pool_prefix(sku, location)
  if as_of_ms == 0 then
    record[pool + ON_HAND] = quantity
    record[pool + COUNTED_AT_MS] = math.max(call.now_ms, record[pool + COUNTED_AT_MS] + 1)
    forget_moves(prefix, 1e15 - 1)
  else
    record[pool + ON_HAND] = quantity + changes_after(prefix, as_of_ms)
    record[pool + COUNTED_AT_MS] = as_of_ms
    forget_moves(prefix, as_of_ms + 1)
  end
end

-- Add units to a counter of a reservation's lines, the moved location's own lines first.
local function settle_lines(reservation, sku, location, quantity, room, apply)
  for _, elsewhere in ipairs({ false, true }) do
    for _, line in ipairs(reservation[LINES]) do
      if line[1] == sku and (line[3] ~= location) == elsewhere then
        local units = math.min(quantity, room(line))
        if units > 0 then
          apply(line, units)
          quantity = quantity - units
        end
      end
    end
  end
  return quantity
end

local function all_lines(reservation, test)
  for _, line in ipairs(reservation[LINES]) do
    if not test(line) then
      return false
    end
  end
  return true
end

-- Units that leave for a known order end its commitment where it was made; goods that have left are sold, so
-- a hold is committed first. Units that leave for nobody in particular end anyone's commitment at the pool. Those
-- that leave for an order that is not known (any more) end nobody's: that could only free too much.
local function settle_shipment(sku, location, quantity, id, reservation)
  if id ~= "" and not reservation then
    return
  end
  if not reservation then
    local record, pool = pool_of(sku, location)
    local open = used(record, pool, COMMITTED) - record[pool + SHIPPED]
    record[pool + SHIPPED] = record[pool + SHIPPED] + math.min(quantity, math.max(0, open))
    return
  end
  if reservation[STATE_AT] == STATE.HELD then
    commit_held(reservation)
    reservation[STATE_AT], reservation[DEADLINE_MS] = STATE.COMMITTED, 0
  end
  if reservation[STATE_AT] ~= STATE.COMMITTED then
    return
  end
  -- Touched before it is changed, so that a movement that breaks here is rolled back too.
  reservations.touch(id)
  settle_lines(reservation, sku, location, quantity, function(line)
    return line[2] - line[4]
  end, function(line, units)
    line[4] = line[4] + units
    promise(sku, line[3], reservation[CHANNEL], COMMITTED, -units)
  end)
  if all_lines(reservation, function(line) return line[4] == line[2] end) then
    reservation[STATE_AT] = STATE.SHIPPED
    reservation[DEADLINE_MS] = call.now_ms + call.reservation_retention_ms
  end
end

local function settle_return(sku, location, quantity, id, reservation)
  if not reservation then
    return
  end
  reservations.touch(id)
  settle_lines(reservation, sku, location, quantity, function(line)
    return line[4] - line[5]
  end, function(line, units)
    line[5] = line[5] + units
  end)
  if reservation[STATE_AT] == STATE.SHIPPED and all_lines(reservation, function(line) return line[5] == line[2] end) then
    reservation[STATE_AT] = STATE.RETURNED
  end
end

local function change_status(sku, location, quantity, source, to)
  local record, pool = pool_of(sku, location)
  stock.touch(sku)
  if BUCKET[source] then
    record[pool + BUCKET[source]] = record[pool + BUCKET[source]] - quantity
  end
  if BUCKET[to] then
    record[pool + BUCKET[to]] = record[pool + BUCKET[to]] + quantity
  end
end

local APPLY = {
  [MOVEMENT.RECEIPT] = function(line, occurred_at_ms)
    change_on_hand(line[1], line[2], line[3], occurred_at_ms)
    change_status(line[1], line[2], line[3], "", line[5])
  end,
  [MOVEMENT.ADJUSTMENT] = function(line, occurred_at_ms)
    change_on_hand(line[1], line[2], line[3], occurred_at_ms)
  end,
  [MOVEMENT.COUNT] = function(line, occurred_at_ms)
    count(line[1], line[2], line[3], occurred_at_ms)
  end,
  [MOVEMENT.SHIPMENT] = function(line, occurred_at_ms, id, reservation)
    change_on_hand(line[1], line[2], -line[3], occurred_at_ms)
    settle_shipment(line[1], line[2], line[3], id, reservation)
  end,
  [MOVEMENT.RETURN] = function(line, occurred_at_ms, id, reservation)
    change_on_hand(line[1], line[2], line[3], occurred_at_ms)
    change_status(line[1], line[2], line[3], "", line[5])
    settle_return(line[1], line[2], line[3], id, reservation)
  end,
  [MOVEMENT.TRANSFER] = function(line, occurred_at_ms)
    change_on_hand(line[1], line[2], -line[3], occurred_at_ms)
    change_on_hand(line[1], line[5], line[3], occurred_at_ms)
  end,
  [MOVEMENT.STATUS] = function(line)
    change_status(line[1], line[2], line[3], line[4], line[5])
  end,
}

local function refuse_unknown_places(kind, lines)
  for _, line in ipairs(lines) do
    if not stock.get(line[1]) then
      return refuse(OUTCOME.UNKNOWN_SKU, line[1])
    end
    if not configuration.get("location:" .. line[2]) then
      return refuse(OUTCOME.UNKNOWN_LOCATION, line[2])
    end
    if kind == MOVEMENT.TRANSFER and not configuration.get("location:" .. line[5]) then
      return refuse(OUTCOME.UNKNOWN_LOCATION, line[5])
    end
  end
end

local function move(key, fingerprint, kind, occurred_at_ms, id, lines)
  local known = events.get(key)
  if known then
    if known[1] ~= fingerprint then
      return refuse(OUTCOME.IDEMPOTENCY_MISMATCH)
    end
    return answer(OUTCOME.DUPLICATE, known[2])
  end
  local refusal = refuse_unknown_places(kind, lines)
  if refusal then
    return refusal
  end
  -- What a reservation is not known for has moved all the same.
  local reservation = id ~= "" and reservations.get(id)
  if reservation and reservation[STATE_AT] == STATE.REFUSED then
    reservation = false
  end
  -- A clock that runs ahead must not let a movement outlive the next count. The gate's own time may be the one that is
  -- late: two movements that were both cut to it would lose their order.
  occurred_at_ms = math.min(occurred_at_ms, call.latest_ms)
  if kind == MOVEMENT.COUNT and occurred_at_ms > 0 and occurred_at_ms < call.now_ms - MOVES_KEPT_MS then
    return refuse(OUTCOME.COUNT_TOO_OLD)
  end

  -- After this point the movement must be applied.
  for _, line in ipairs(lines) do
    APPLY[kind](line, occurred_at_ms, id, reservation)
  end
  events.put(key, { fingerprint, 0, call.now_ms + call.event_retention_ms })
  local version = record_decision(KIND.MOVED, key, { kind, occurred_at_ms, id, lines })
  return answer(OUTCOME.APPLIED, version)
end
