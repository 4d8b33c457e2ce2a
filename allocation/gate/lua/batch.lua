--[[
  Decide a batch of commands in order, and journal what was decided.

  The decisions are made on a working copy; only then is anything written: the journal first, which Redis
  itself refuses from an older epoch, then writes that cannot fail. Memory may be exceeded (allow-oom) so
  that units can always be given back; the caller stops sending reservations long before that.

  KEYS[1]  meta           hash: epoch, sequence, hash, last_ms
  KEYS[2]  stock          hash: SKU -> record
  KEYS[3]  reservations   hash: reservation id -> record
  KEYS[4]  events         hash: source and event id of a movement -> record
  KEYS[5]  configuration  hash: "location:" or "channel:" and code -> record
  KEYS[6]  deadlines      sorted set: when a hold expires or, negative, a closed record may be forgotten, ms
  KEYS[7]  moves          sorted set: recent movements by SKU, location and time
  KEYS[8]  journal        stream: what the ledger may not have yet
  ARGV[1]  epoch                  ARGV[2]  run id of the server      ARGV[3]  its replication id
  ARGV[4]  commands, packed       ARGV[5]  sequence that is durable
  ARGV[6]  lines of overdue holds to expire, and closed records to forget, at most
  ARGV[7]  retention of closed reservations, ms
  ARGV[8]  retention of movement ids, ms
  ARGV[9], ARGV[10]  the earliest and the latest time that it may be, ms

  Returns {header, answers, entries}: packed [status, now ms, first sequence, hash before, last sequence, hash
  after, whether every overdue hold has been looked at, what the clock of Redis shows, ms]; packed one [outcome,
  version, record, extra] a command; and the journal entries.
]]
--- @include state
--- @include fence
--- @include packing
--- @include stock
--- @include records
--- @include answer
--- @include journal
--- @include pools
--- @include reserve
--- @include confirm
--- @include release
--- @include extend
--- @include order
--- @include move
--- @include configure
--- @include read
--- @include expire

local DECIDE = {
  [OPERATION.RESERVE] = reserve,
  [OPERATION.CONFIRM] = confirm,
  [OPERATION.RELEASE] = release,
  [OPERATION.EXTEND] = extend,
  [OPERATION.ORDER] = order,
  [OPERATION.MOVE] = move,
  [OPERATION.CONFIGURE_SKU] = configure_sku,
  [OPERATION.CONFIGURE_LOCATION] = configure_location,
  [OPERATION.CONFIGURE_CHANNEL] = configure_channel,
  [OPERATION.READ_RESERVATION] = read_reservation,
  [OPERATION.READ_STOCK] = read_stock,
  [OPERATION.READ_CONFIGURATION] = read_configuration,
  [OPERATION.CHECK_LINES] = check_lines,
}

-- Read the commands one by one: {where the next one begins, operation, arguments ...}. To unpack them as one
-- table would grow a table value by value for each.
local function read_commands(packed)
  local count, offset = read_array_header(packed, 0)
  local commands = {}
  for index = 1, count do
    local values, first = read_array_header(packed, offset)
    local command = { unpack_limit(packed, values, first) }
    commands[index], offset = command, command[1]
  end
  return commands
end

-- Reservations make most of a batch: read what they name in two calls.
local function prefetch(commands)
  local ids, skus, seen = {}, {}, {}
  for index = 1, #commands do
    local command = commands[index]
    if command[2] == OPERATION.RESERVE then
      ids[#ids + 1] = command[3]
      local lines = command[9]
      for line = 1, #lines do
        local sku = lines[line][1]
        if not seen[sku] then
          seen[sku] = true
          skus[#skus + 1] = sku
        end
      end
    end
  end
  reservations.prefetch(ids)
  stock.prefetch(skus)
end

local function decide_all(commands)
  -- A poison command may break this; what was not read now is then read when it is needed.
  pcall(prefetch, commands)
  for index = 1, #commands do
    local command = commands[index]
    begin_answer(index)
    local sound, fault = pcall(DECIDE[command[2]], unpack(command, 3))
    if not sound then
      roll_back()
      begin_answer(index)
      answer(OUTCOME.FAULT, 0, nil, pack(tostring(fault)))
    end
  end
end

local function batch(keys, arguments)
  local status, sequence, hash, last_ms = fence(keys[1], arguments[1], arguments[2], arguments[3])
  if status ~= STATUS.DECIDED then
    return { cmsgpack.pack({ status, 0, 0, "", 0, "", false }), EMPTY, {} }
  end
  start_call(keys, arguments, last_ms)
  start_records(keys)
  start_journal(sequence, hash)
  local commands = read_commands(arguments[4])
  start_answers(#commands)
  expire_overdue(tonumber(arguments[6]))
  decide_all(commands)
  write_everything(tonumber(arguments[5]))
  local header = pack({ STATUS.DECIDED, call.now_ms, sequence + 1, hash, journal.sequence, journal.hash,
    call.swept_all, call.clock_ms })
  return { header, all_answers(), journal.entries }
end

redis.register_function({ function_name = "batch_VERSION", callback = batch, flags = { "allow-oom" } })
