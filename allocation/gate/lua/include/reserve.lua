--[[
  Hold units for a checkout: every line or none, or with `partial` as much as there is.

  Command: {op, reservation id, fingerprint, channel, ttl ms, partial, replaces, {{sku, quantity, location}}}
  Outcomes: HELD, REPLAYED, INSUFFICIENT_STOCK, IDEMPOTENCY_MISMATCH, UNKNOWN_*, ALREADY_COMMITTED, DEFERRED
]]
local STATE_AT, VERSION_AT, FINGERPRINT, CHANNEL, DEADLINE_MS, ORDER_ID, REPLACED_BY = 1, 2, 3, 4, 5, 6, 7
local LINES, SHORTAGES = 8, 9

-- A reservation seen before is answered from its record, if the request is the same in every field.
local function replay(known, fingerprint)
  if known[FINGERPRINT] ~= fingerprint then
    return refuse(OUTCOME.IDEMPOTENCY_MISMATCH)
  end
  local outcome = known[STATE_AT] == STATE.REFUSED and OUTCOME.INSUFFICIENT_STOCK or OUTCOME.REPLAYED
  return answer(outcome, known[VERSION_AT], cmsgpack.pack(known), cmsgpack.pack(true))
end

-- Give back what a hold or the unshipped part of a commitment has, and close its record.
local function close(id, reservation, state)
  local bucket = reservation[STATE_AT] == STATE.HELD and RESERVED or COMMITTED
  for _, line in ipairs(reservation[LINES]) do
    promise(line[1], line[3], reservation[CHANNEL], bucket, line[4] - line[2])
  end
  reservation[STATE_AT] = state
  reservation[DEADLINE_MS] = call.now_ms + call.reservation_retention_ms
  reservations.touch(id)
end

-- The shopper's own earlier hold gives way first, so that it never stands in their way.
local function give_way(replaced_id, id)
  local replaced = reservations.get(replaced_id)
  if not replaced or replaced[STATE_AT] == STATE.REFUSED then
    return refuse(OUTCOME.UNKNOWN_RESERVATION, replaced_id)
  end
  if replaced[STATE_AT] == STATE.HELD then
    close(replaced_id, replaced, STATE.RELEASED)
  elseif replaced[STATE_AT] ~= STATE.RELEASED and replaced[STATE_AT] ~= STATE.EXPIRED then
    return refuse(OUTCOME.ALREADY_COMMITTED, replaced_id)
  end
  -- From here on the earlier hold can only be confirmed as lost.
  replaced[STATE_AT] = STATE.RELEASED
  replaced[REPLACED_BY] = id
  reservations.touch(replaced_id)
end

local function reserve(id, fingerprint, channel_code, ttl_ms, partial, replaces, wanted)
  local known = reservations.get(id)
  if known then
    return replay(known, fingerprint)
  end
  local channel = configuration.get("channel:" .. channel_code)
  if not channel then
    return refuse(OUTCOME.UNKNOWN_CHANNEL, channel_code)
  end
  local refusal = refuse_unknown(channel, wanted) or (replaces ~= "" and give_way(replaces, id) or nil)
  if refusal then
    return refusal
  end
  local lines, shortages = source_lines(channel_code, channel, wanted, RESERVED)
  if #shortages > 0 and not call.swept_all then
    return refuse(OUTCOME.DEFERRED)
  end
  if #shortages > 0 and (not partial or #lines == 0) then
    roll_back()
    reservations.put(id, { STATE.REFUSED, 0, fingerprint, channel_code, call.now_ms + call.reservation_retention_ms,
      "", "", {}, shortages })
    local version = record_decision(KIND.REFUSED, id)
    return answer(OUTCOME.INSUFFICIENT_STOCK, version, reservations.packed(id))
  end

  -- After this point the reservation must succeed.
  reservations.put(id, { STATE.HELD, 0, fingerprint, channel_code, call.now_ms + ttl_ms, "", "", lines, shortages })
  local version = record_decision(KIND.HELD, id)
  return answer(OUTCOME.HELD, version, reservations.packed(id))
end
