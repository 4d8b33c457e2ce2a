--[[
  Expire overdue holds, then forget closed records whose retention has passed, of both a bounded number a call.

  The two stand at opposite ends of the deadlines: a hold at the time when it expires, a closed record at the
  negative of the time from which it may be forgotten. However much is to be forgotten, no hold waits behind it.

  A hold that cannot be ended, because its record cannot be read or claims what is not reserved, keeps its units until
  it is mended, and its neighbours go on. Only its turn is put off: its record stays as it is and nothing is journaled,
  since what is broken must not get into the ledger. A rebuild therefore tries it again at once.
]]
local PUT_OFF_MS = 60 * 1000

-- Do something whole or not at all, so that what is broken stops nobody else. Returns what it gave.
local function attempt(subject, act, argument)
  local sound, given = pcall(act, argument)
  if not sound then
    roll_back()
    redis.log(redis.LOG_WARNING, "Ringfence: " .. subject .. " breaks what ends it: " .. tostring(given))
  end
  return sound and given
end

local function forget(members)
  for _, member in ipairs(members) do
    local records = string.sub(member, 1, 1) == "r" and reservations or events
    records.put(string.sub(member, 2), false)
  end
  record_decision(KIND.FORGOTTEN, "")
end

-- Returns how many lines it had. What is no hold, which only an older version puts here, may be forgotten.
local function expire(member)
  local id = string.sub(member, 2)
  local reservation = string.sub(member, 1, 1) == "r" and reservations.get(id)
  if not reservation or reservation[STATE_AT] ~= STATE.HELD then
    forget({ member })
    return 1
  end
  close(id, reservation, STATE.EXPIRED)
  record_decision(KIND.EXPIRED, id)
  return #reservation[LINES]
end

local function put_off(member)
  local turns = call.put_off
  turns[#turns + 1], turns[#turns + 2] = call.now_ms + PUT_OFF_MS, member
end

local function expire_holds(lines_max)
  local overdue = redis_call("ZRANGEBYSCORE", call.keys[6], 0, call.now_ms, "LIMIT", 0, lines_max)
  local ids, ended, lines = {}, 0, 0
  for index = 1, #overdue do
    ids[index] = string.sub(overdue[index], 2)
  end
  reservations.prefetch(ids)
  while ended < #overdue and lines < lines_max do
    ended = ended + 1
    local lines_ended = attempt(overdue[ended], expire, overdue[ended])
    if not lines_ended then
      put_off(overdue[ended])
    end
    lines = lines + (lines_ended or 1)
  end
  call.swept_all = ended == #overdue and ended < lines_max
end

local function forget_closed(records_max)
  -- From zero downwards: the oldest first.
  local due = redis_call("ZREVRANGEBYSCORE", call.keys[6], "(0", -call.now_ms, "LIMIT", 0, records_max)
  if #due > 0 then
    attempt("what is to be forgotten", forget, due)
  end
end

local function expire_overdue(overdue_max)
  expire_holds(overdue_max)
  if call.swept_all then
    forget_closed(overdue_max)
  end
end
