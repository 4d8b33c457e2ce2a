--[[
  The heads of packed arrays. Those of a known length stand in the code: "\144" is an array of none, "\145" of one.
]]
local NIL, EMPTY, PAIR = "\192", "\144", "\146"

-- Made once for each count: few counts occur, and all the time.
local long_headers = {}

local function long_array_header(count)
  local header = long_headers[count]
  if not header then
    local high, low = math.floor(count / 256), count % 256
    header = count < 65536 and string.char(220, high, low)
      or string.char(221, math.floor(high / 65536), math.floor(high / 256) % 256, high % 256, low)
    long_headers[count] = header
  end
  return header
end

local function array_header(count)
  return count < 16 and string.char(144 + count) or long_array_header(count)
end

-- Returns how many values the array at `offset` has, and where they begin.
local function read_array_header(packed, offset)
  local head, high, low = string.byte(packed, offset + 1, offset + 3)
  if head >= 144 and head < 160 then
    return head - 144, offset + 1
  end
  if head ~= 220 then
    error("A command is no array")
  end
  return high * 256 + low, offset + 3
end
