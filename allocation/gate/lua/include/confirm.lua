--[[
  Turn a hold into a commitment; an expired hold takes its units again, if they are still there.

  Command: {op, reservation id, order id}
  Outcomes: COMMITTED, REPLAYED, HOLD_LOST, IDEMPOTENCY_MISMATCH, UNKNOWN_RESERVATION, DEFERRED
]]
local function commit_held(reservation)
  for _, line in ipairs(reservation[LINES]) do
    promise(line[1], line[3], reservation[CHANNEL], RESERVED, -line[2])
    promise(line[1], line[3], reservation[CHANNEL], COMMITTED, line[2])
  end
end

-- Each line tries its own location first, then, unless it was pinned, wherever the channel sources.
local function commit_again(reservation)
  local channel = configuration.get("channel:" .. reservation[CHANNEL])
  local lines = {}
  for _, line in ipairs(reservation[LINES]) do
    local sku, pinned = line[1], line[6]
    local missing = take(sku, line[2], { line[3] }, pinned, reservation[CHANNEL], COMMITTED, lines)
    if missing > 0 and not pinned then
      missing = take(sku, missing, channel[3], pinned, reservation[CHANNEL], COMMITTED, lines)
    end
    if missing > 0 then
      return false
    end
  end
  reservation[LINES] = lines
  return true
end

-- A repeated confirmation may still name the order, where no earlier one did.
local function confirm_again(id, reservation, order_id)
  if order_id == "" or order_id == reservation[ORDER_ID] then
    return answer(OUTCOME.REPLAYED, reservation[VERSION_AT], cmsgpack.pack(reservation))
  end
  if reservation[ORDER_ID] ~= "" then
    return refuse(OUTCOME.IDEMPOTENCY_MISMATCH)
  end

  -- After this point the order must be named.
  reservation[ORDER_ID] = order_id
  reservations.touch(id)
  local version = record_decision(KIND.COMMITTED, id)
  return answer(OUTCOME.COMMITTED, version, reservations.packed(id))
end

local function confirm(id, order_id)
  local reservation = reservations.get(id)
  if not reservation or reservation[STATE_AT] == STATE.REFUSED then
    return refuse(OUTCOME.UNKNOWN_RESERVATION, id)
  end
  local state = reservation[STATE_AT]
  if state == STATE.RELEASED then
    return refuse(OUTCOME.HOLD_LOST, id)
  end
  if state ~= STATE.HELD and state ~= STATE.EXPIRED then
    return confirm_again(id, reservation, order_id)
  end
  if state == STATE.HELD then
    commit_held(reservation)
  elseif not commit_again(reservation) then
    -- What was taken so far is given back by the refusal, which rolls this decision back.
    reservations.touch(id)
    return refuse(call.swept_all and OUTCOME.HOLD_LOST or OUTCOME.DEFERRED, id)
  end

  -- After this point the confirmation must succeed.
  reservation[STATE_AT], reservation[ORDER_ID], reservation[DEADLINE_MS] = STATE.COMMITTED, order_id, 0
  reservations.touch(id)
  local version = record_decision(KIND.COMMITTED, id)
  return answer(OUTCOME.COMMITTED, version, reservations.packed(id))
end
