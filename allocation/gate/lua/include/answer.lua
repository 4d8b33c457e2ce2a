--[[
  What a command is answered with: [outcome, version, record, extra], the last two packed already.

  Answers are kept in parts, the same number for each, and joined once.
]]
local ANSWER_PARTS = 3
local answers = { count = 0 }

local function start_answers(count)
  answers.parts, answers.count = { array_header(count) }, 1
end

-- A command that broke has its own answer overwritten.
local function begin_answer(number)
  answers.count = 1 + (number - 1) * ANSWER_PARTS
end

local function answer(outcome, version, record, extra)
  local parts, count = answers.parts, answers.count
  parts[count + 1], parts[count + 2], parts[count + 3] = "\148" .. pack(outcome, version), record or NIL, extra or NIL
  answers.count = count + ANSWER_PARTS
  return true
end

-- A refusal changes nothing and is not journaled.
local function refuse(outcome, extra)
  roll_back()
  return answer(outcome, 0, nil, extra and pack(extra))
end

local function all_answers()
  return concat(answers.parts, "", 1, answers.count)
end
