--[[
  Let a live hold end `ttl ms` from now.

  Command: {op, reservation id, ttl ms}
  Outcomes: EXTENDED, HOLD_LOST, ALREADY_COMMITTED, UNKNOWN_RESERVATION
]]
local function extend(id, ttl_ms)
  local reservation = reservations.get(id)
  if not reservation or reservation[STATE_AT] == STATE.REFUSED then
    return refuse(OUTCOME.UNKNOWN_RESERVATION, id)
  end
  local state = reservation[STATE_AT]
  if state == STATE.RELEASED or state == STATE.EXPIRED then
    return refuse(OUTCOME.HOLD_LOST, id)
  end
  if state ~= STATE.HELD then
    return refuse(OUTCOME.ALREADY_COMMITTED, id)
  end

  -- After this point the extension must succeed.
  reservation[DEADLINE_MS] = call.now_ms + ttl_ms
  reservations.touch(id)
  local version = record_decision(KIND.EXTENDED, id)
  return answer(OUTCOME.EXTENDED, version, reservations.packed(id))
end
