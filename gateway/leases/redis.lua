-- The lease store in Redis: one call is one script, so nothing comes between its reads and its writes.
-- KEYS[1] is the prefix of all keys; its hash tag puts them on one node of a cluster. ARGV: operation, clock or '', then
-- what the operation takes. gateway/leases/arithmetic.py says the same in Python and explains the rules.
--
--   :epoch           hash   id, run, until, since: what names this life of the data, which run of the server it belongs to,
--                           until when nothing is lent, and when data were lost
--   :alive :silent   zsets  session by the time of its last message; a silent one has lost its buckets and slots
--   :s:<session>     hash   #seq, #state, and per account "settled lent"
--   :a:<account>     hash   settled, lent, sharers, seeded; of a bucket level and at

local prefix, operation = KEYS[1], ARGV[1]
local server = redis.call('TIME')
local wall = tonumber(server[1]) + tonumber(server[2]) / 1e6
local now = tonumber(ARGV[2]) or wall

-- Amounts are 64-bit integers, Lua's numbers are doubles: an amount is {high, low}, high * 1e9 + low, 0 <= low < 1e9.

local BILLION = 1000000000

local function parse(text)
    if not text or text == '' then return {0, 0} end
    local negative = text:sub(1, 1) == '-'
    if negative then text = text:sub(2) end
    local high, low = 0, tonumber(text:sub(-9))
    if #text > 9 then high = tonumber(text:sub(1, -10)) end
    if not negative then return {high, low} end
    if low == 0 then return {-high, 0} end
    return {-high - 1, BILLION - low}
end

local function text(a)
    local high, low = a[1], a[2]
    local sign = ''
    if high < 0 then
        sign, high = '-', -high
        if low > 0 then high, low = high - 1, BILLION - low end
    end
    if high == 0 then return sign .. string.format('%.0f', low) end
    return sign .. string.format('%.0f%09.0f', high, low)
end

local function add(a, b)
    local high, low = a[1] + b[1], a[2] + b[2]
    if low >= BILLION then return {high + 1, low - BILLION} end
    return {high, low}
end

local function subtract(a, b)
    local high, low = a[1] - b[1], a[2] - b[2]
    if low < 0 then return {high - 1, low + BILLION} end
    return {high, low}
end

local function less(a, b)
    return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end

local ZERO = {0, 0}

local function positive(a)
    if a[1] < 0 then return ZERO end
    return a
end

local function is_zero(a) return a[1] == 0 and a[2] == 0 end

local function number(a) return a[1] * BILLION + a[2] end -- exact below 2^53: for buckets and slots

-- Rows

local function key_of(account) return prefix .. ':a:' .. account end
local function kind_of(account) return account:sub(1, 1) end

local function read_pot(account)
    local row = redis.call('HMGET', key_of(account), 'settled', 'lent', 'sharers', 'seeded', 'level', 'at')
    return {
        known = row[1] and true or false, settled = parse(row[1]), lent = parse(row[2]),
        sharers = tonumber(row[3] or 0), seeded = row[4] == '1', level = tonumber(row[5] or nil), at = tonumber(row[6] or nil),
    }
end

-- ends: Unix time or nil. A key lives an hour longer than its account is asked for.
local function write_pot(account, pot, ends)
    local key = key_of(account)
    local row = {
        'settled', text(pot.settled), 'lent', text(pot.lent), 'sharers', math.max(pot.sharers, 0),
        'seeded', pot.seeded and '1' or '0',
    }
    if pot.level then
        row[#row + 1] = 'level'
        row[#row + 1] = string.format('%.17g', pot.level)
        row[#row + 1] = 'at'
        row[#row + 1] = string.format('%.17g', pot.at)
    end
    redis.call('HSET', key, unpack(row))
    if ends and not pot.known then
        redis.call('PEXPIRE', key, string.format('%.0f', math.max(ends - wall, 0) * 1000 + 3600000))
    end
end

local function share_of(row)
    if not row then return nil end
    local settled, lent = row:match('^(%-?%d+) (%-?%d+)$')
    return {settled = parse(settled), lent = parse(lent)}
end

local function read_share(session_key, account) return share_of(redis.call('HGET', session_key, account)) end

local function write_share(session_key, account, share)
    redis.call('HSET', session_key, account, text(share.settled) .. ' ' .. text(share.lent))
end

-- Buckets

local function read_epoch()
    local row = redis.call('HMGET', prefix .. ':epoch', 'until', 'since')
    return tonumber(row[1] or nil), tonumber(row[2] or nil)
end

-- What is lent counts as being in the bucket, or it could serve its burst twice. A bucket that is new since data were lost
-- may have been emptied just before, so it starts empty at the time of the loss.
local function fill(pot, burst, rate)
    local level = pot.level
    if level then
        level = level + rate * math.max(0, now - pot.at)
    else
        local _, since = read_epoch()
        level = math.min(burst, rate * math.max(0, now - since))
    end
    pot.level, pot.at = math.min(level, burst - number(pot.lent)), now
end

-- Sessions

local function session_key_of(session) return prefix .. ':s:' .. session end

-- 'open' if the message is newer than all before it, else 'stale' or 'closed'
local function enter(session, seq)
    local key = session_key_of(session)
    local row = redis.call('HMGET', key, '#seq', '#state')
    if row[2] == 'closed' then return 'closed' end
    if row[1] and tonumber(row[1]) >= seq then return 'stale' end
    redis.call('HSET', key, '#seq', string.format('%.0f', seq))
    if not row[1] then redis.call('PERSIST', key) end
    redis.call('ZADD', prefix .. ':alive', string.format('%.6f', now), session)
    redis.call('ZREM', prefix .. ':silent', session)
    return 'open'
end

-- Takes buckets and slots from sessions that fell silent. After the clock was set back, their silence starts anew.
local function expire(ttl)
    local alive = prefix .. ':alive'
    for _, session in ipairs(redis.call('ZRANGEBYSCORE', alive, string.format('(%.6f', now), '+inf')) do
        redis.call('ZADD', alive, string.format('%.6f', now), session)
    end
    local silent = redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('(%.6f', now - ttl), 'WITHSCORES')
    for i = 1, #silent, 2 do
        local session, key = silent[i], session_key_of(silent[i])
        redis.call('ZREM', alive, session)
        redis.call('ZADD', prefix .. ':silent', silent[i + 1], session)
        local row = redis.call('HGETALL', key)
        for j = 1, #row, 2 do
            local account = row[j]
            if kind_of(account) == 'l' or kind_of(account) == 'p' then
                local share = share_of(row[j + 1])
                local pot = read_pot(account)
                if pot.known and not is_zero(share.lent) then
                    pot.lent = subtract(pot.lent, share.lent)
                    if pot.level then pot.at = now end
                    write_pot(account, pot)
                end
                write_share(key, account, {settled = share.settled, lent = ZERO})
            end
        end
    end
end

-- Accounts that ended are gone from the store; a long session must not keep its shares of them for ever.
local function forget_some(session_key)
    for _, account in ipairs(redis.call('HRANDFIELD', session_key, 4)) do
        if account:sub(1, 1) ~= '#' and redis.call('EXISTS', key_of(account)) == 0 then
            redis.call('HDEL', session_key, account)
        end
    end
end

-- Without the marker all data are gone: for a while sessions only say what they hold.
local function quarantine(run, seconds)
    local since = seconds > 0 and now or 0
    redis.call('HSET', prefix .. ':epoch', 'id', run .. '-' .. server[1] .. '.' .. server[2], 'run', run,
        'since', string.format('%.6f', since), 'until', string.format('%.6f', now + seconds))
    return seconds
end

-- How long nothing is lent yet. A clock that was set back must not make it longer.
local function quarantined(seconds)
    local till = read_epoch()
    if not till then return quarantine('', seconds) end
    return math.min(math.max(0, till - now), seconds)
end

-- A session that has dealt with another epoch must tell everything again before it gets an answer.
local function forgotten(epoch)
    local current = redis.call('HGET', prefix .. ':epoch', 'id')
    if epoch ~= current then return {'forgotten', current} end
end

local function elsewhere(account, counted)
    local sum = ZERO
    for _, other in ipairs(counted) do
        if other ~= account then
            local pot = read_pot(other)
            sum = add(sum, add(pot.settled, pot.lent))
        end
    end
    return sum
end

local function unseeded(requests)
    local found = {}
    local function look(account)
        if redis.call('HGET', key_of(account), 'seeded') ~= '1' then found[#found + 1] = account end
    end
    for _, request in ipairs(requests) do
        if kind_of(request[1]) == 'b' then
            look(request[1])
            for _, other in ipairs(request[5]) do look(other) end
        end
    end
    return found
end

-- The operations. Requests, reports and accounts come as JSON arrays with amounts as texts.

local function optional(value)
    if value == cjson.null then return nil end
    return value
end

local operations = {}

-- run id, seconds of quarantine → the epoch
function operations.attach(run, seconds)
    local known = redis.call('HGET', prefix .. ':epoch', 'run')
    if not known or (known ~= '' and known ~= run) then
        quarantine(run, tonumber(seconds))
    else
        redis.call('HSET', prefix .. ':epoch', 'run', run)
    end
    return {'ok', redis.call('HGET', prefix .. ':epoch', 'id')}
end

-- → {'ok', granted, remaining, sharers, …}, {'closed'}, {'stale'}, {'quarantine', seconds}, {'unseeded', account, …},
--   {'forgotten', epoch}
function operations.borrow(session, seq, ttl, seconds, epoch, must_be_seeded, requests)
    local wait = quarantined(tonumber(seconds))
    local lost = forgotten(epoch)
    if lost then return lost end
    local entered = enter(session, tonumber(seq))
    if entered ~= 'open' then return {entered} end
    if wait > 0 then return {'quarantine', string.format('%.3f', wait)} end
    expire(tonumber(ttl))
    local session_key = session_key_of(session)
    requests = cjson.decode(requests)
    if must_be_seeded == '1' then
        local missing = unseeded(requests)
        if #missing > 0 then return {'unseeded', unpack(missing)} end
    end
    local answer = {'ok'}
    for _, request in ipairs(requests) do
        local account, limit, rate, ends = request[1], parse(request[2]), request[3], optional(request[4])
        local want, least = parse(request[6]), parse(request[7])
        local pot = read_pot(account)
        local kind = kind_of(account)
        local free, was_set_back
        if kind == 'b' then
            free = subtract(subtract(subtract(limit, pot.settled), pot.lent), elsewhere(account, request[5]))
        elseif kind == 'l' then
            was_set_back = pot.at and pot.at > now
            fill(pot, number(limit), rate)
            free = parse(string.format('%.0f', math.floor(pot.level)))
        else
            free = subtract(limit, pot.lent)
        end
        local granted = ZERO
        if not less(free, want) then granted = want elseif not less(free, least) then granted = free end
        if not is_zero(granted) then
            local share = read_share(session_key, account)
            if not share then
                share = {settled = ZERO, lent = ZERO}
                pot.sharers = pot.sharers + 1
            end
            share.lent = add(share.lent, granted)
            pot.lent = add(pot.lent, granted)
            if pot.level then pot.level = pot.level - number(granted) end
            write_share(session_key, account, share)
            write_pot(account, pot, ends)
        elseif was_set_back then
            write_pot(account, pot, ends)
        end
        answer[#answer + 1] = text(granted)
        answer[#answer + 1] = text(subtract(free, granted))
        answer[#answer + 1] = math.max(pot.sharers, 1)
    end
    return answer
end

-- accounts: [id, limit, rate, ends, counted, …] → used, lent, sharers of each
function operations.state(accounts)
    local answer = {'ok'}
    for _, each in ipairs(cjson.decode(accounts)) do
        local account, limit = each[1], parse(each[2])
        local pot = read_pot(account)
        local used
        if kind_of(account) == 'b' then
            used = add(add(pot.settled, pot.lent), elsewhere(account, each[5]))
        elseif kind_of(account) == 'l' then
            used = ZERO
            if pot.known then
                fill(pot, number(limit), each[3])
                used = subtract(limit, parse(string.format('%.0f', math.floor(pot.level))))
            end
        else
            used = pot.lent
        end
        answer[#answer + 1] = text(used)
        answer[#answer + 1] = text(pot.lent)
        answer[#answer + 1] = math.max(pot.sharers, 1)
    end
    return answer
end

-- reports: [id, limit, rate, ends, counted, settled, lent] → as state
function operations.sync(session, seq, ttl, seconds, epoch, reports)
    quarantined(tonumber(seconds))
    local lost = forgotten(epoch)
    if lost then return lost end
    local entered = enter(session, tonumber(seq))
    if entered == 'closed' then return {entered} end
    if entered == 'stale' then return operations.state(reports) end
    expire(tonumber(ttl))
    local session_key = session_key_of(session)
    for _, report in ipairs(cjson.decode(reports)) do
        local account, settled, lent = report[1], parse(report[6]), parse(report[7])
        local share = read_share(session_key, account)
        local known = share or {settled = ZERO, lent = ZERO}
        local spent = positive(subtract(settled, known.settled))
        local taken = subtract(lent, known.lent)
        if not (is_zero(spent) and is_zero(taken)) then
            local pot = read_pot(account)
            if kind_of(account) == 'l' then
                fill(pot, number(parse(report[2])), report[3])
                pot.level = pot.level - number(taken) - number(spent)
            end
            pot.settled, pot.lent = add(pot.settled, spent), add(pot.lent, taken)
            if not share then pot.sharers = pot.sharers + 1 end
            write_share(session_key, account, {settled = add(known.settled, spent), lent = lent})
            write_pot(account, pot, optional(report[4]))
        end
    end
    forget_some(session_key)
    return operations.state(reports)
end

-- settled: [[account, amount], …]
function operations.close(session, ttl, seconds, must_be_seeded, settled)
    quarantined(tonumber(seconds))
    local key = session_key_of(session)
    if redis.call('HGET', key, '#state') == 'closed' then return {'ok'} end
    redis.call('HSET', key, '#state', 'closed')
    redis.call('ZREM', prefix .. ':alive', session)
    redis.call('ZREM', prefix .. ':silent', session)
    expire(tonumber(ttl))
    local final = {}
    for _, each in ipairs(cjson.decode(settled)) do final[each[1]] = parse(each[2]) end
    local row = redis.call('HGETALL', key)
    local shares = {}
    for i = 1, #row, 2 do
        if row[i]:sub(1, 1) ~= '#' then
            shares[row[i]] = share_of(row[i + 1])
            final[row[i]] = final[row[i]] or ZERO
        end
    end
    for account, amount in pairs(final) do
        local share = shares[account] or {settled = ZERO, lent = ZERO}
        local spent = positive(subtract(amount, share.settled))
        local pot = read_pot(account)
        if pot.known or kind_of(account) == 'b' then
            pot.settled, pot.lent = add(pot.settled, spent), subtract(pot.lent, share.lent)
            if pot.level then
                pot.level, pot.at = pot.level + math.max(0, number(share.lent) - number(spent)), now
            end
            if shares[account] then pot.sharers = pot.sharers - 1 end
            -- Nobody told when a new account ends: long enough for a month's budget.
            write_pot(account, pot, not pot.known and wall + 32 * 86400 or nil)
        end
        if must_be_seeded == '1' and kind_of(account) == 'b' and not pot.seeded then
            -- The ledger will tell the same sum when the account is seeded; the share prevents that it counts twice.
            write_share(key, account, {settled = add(share.settled, spent), lent = ZERO})
        else
            redis.call('HDEL', key, account)
        end
    end
    redis.call('EXPIRE', key, 30 * 86400)
    return {'ok'}
end

-- sums: [[account, ends, [[session, amount], …]], …], from the ledger
function operations.seed(sums)
    for _, each in ipairs(cjson.decode(sums)) do
        local account = each[1]
        local pot = read_pot(account)
        if not pot.seeded then
            for _, part in ipairs(each[3]) do
                local key, amount = session_key_of(part[1]), parse(part[2])
                local is_new = redis.call('EXISTS', key) == 0
                local share = read_share(key, account)
                local known = share or {settled = ZERO, lent = ZERO}
                local spent = positive(subtract(amount, known.settled))
                pot.settled = add(pot.settled, spent)
                write_share(key, account, {settled = add(known.settled, spent), lent = known.lent})
                if is_new then redis.call('EXPIRE', key, 86400) end
            end
            pot.seeded = true
            write_pot(account, pot, optional(each[2]))
        end
    end
    return {'ok'}
end

function operations.reset(account, limit)
    local pot = read_pot(account)
    if pot.known then
        pot.settled = ZERO
        if kind_of(account) == 'l' then pot.level, pot.at = number(subtract(parse(limit), pot.lent)), now end
        write_pot(account, pot)
    end
    return {'ok'}
end

-- → session, seconds of silence, …
function operations.sessions()
    local answer = {'ok'}
    for _, set in ipairs({':alive', ':silent'}) do
        local row = redis.call('ZRANGE', prefix .. set, 0, -1, 'WITHSCORES')
        for i = 1, #row, 2 do
            answer[#answer + 1] = row[i]
            answer[#answer + 1] = string.format('%.6f', math.max(0, now - tonumber(row[i + 1])))
        end
    end
    return answer
end

return operations[operation](unpack(ARGV, 3))
