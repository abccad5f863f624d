"""Leases: accounts, shares, sessions; and on PostgreSQL the functions that lend in one round trip.

The functions are how `gateway.leases.postgres` keeps no lock while a message travels. They cannot deadlock: a transaction
locks its own session, then all accounts that it needs in the order of their ids; what it touches beside that is skipped
when somebody else has it. `gateway.leases.arithmetic` says the same in Python and explains the rules.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lease_accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("lent", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Double()),
        sa.Column("filled_at", sa.Double()),
        sa.Column("sharers", sa.Integer(), nullable=False),
        sa.Column("ends_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_lease_accounts"),
    )
    op.create_table(
        "lease_shares",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("lent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session", "account", name="pk_lease_shares"),
    )
    op.create_index("ix_lease_shares_account", "lease_shares", ["account"])
    op.create_table(
        "lease_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lease_sessions"),
    )
    op.create_index("ix_lease_sessions_state", "lease_sessions", ["state"])
    if op.get_bind().dialect.name == "postgresql":
        for function in FUNCTIONS.values():
            op.get_bind().exec_driver_sql(function)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for signature in reversed(FUNCTIONS):
            op.get_bind().exec_driver_sql(f"DROP FUNCTION {signature}")
    for table in ("lease_sessions", "lease_shares", "lease_accounts"):
        op.drop_table(table)


# Signature → definition, in the order in which they need each other. `clock` replaces the server's, for tests.
FUNCTIONS = {
    "lease_now(float8)": """
CREATE FUNCTION lease_now(clock float8) RETURNS float8 LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(clock, extract(epoch FROM clock_timestamp())::float8)
$$
""",
    # The level of a bucket now. What is lent counts as being in it, or a bucket could serve its burst twice.
    "lease_filled(lease_accounts, bigint, float8, float8)": """
CREATE FUNCTION lease_filled(account lease_accounts, burst bigint, rate float8, at float8) RETURNS float8
LANGUAGE sql IMMUTABLE AS $$
    SELECT least(
        coalesce(account.level + rate * greatest(0, at - account.filled_at), burst),
        (burst - account.lent)::float8
    )
$$
""",
    # True if the session may go on, false if this message was overtaken by a later one.
    "lease_enter(text, bigint, float8)": """
CREATE FUNCTION lease_enter(who text, number bigint, clock float8) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    now float8 := lease_now(clock);
BEGIN
    INSERT INTO lease_sessions AS known (id, seq, seen_at, state) VALUES (who, number, now, 'open')
    ON CONFLICT (id) DO UPDATE SET seq = number, seen_at = now, state = 'open'
    WHERE known.state <> 'closed' AND known.seq < number;
    IF FOUND THEN
        RETURN true;
    END IF;
    IF EXISTS (SELECT FROM lease_sessions WHERE id = who AND state = 'closed') THEN
        RAISE EXCEPTION USING ERRCODE = 'PSCLO', MESSAGE = 'the session is closed';
    END IF;
    RETURN false;
END
$$
""",
    # Locks accounts in the order of their ids, makes those that are new, and takes buckets and slots from silent sessions.
    "lease_lock(text[], text[], float8, float8)": """
CREATE FUNCTION lease_lock(own text[], counted text[], ttl float8, clock float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now float8 := lease_now(clock);
    silent text[];
    wanted text[] := own || counted;
BEGIN
    -- Further ahead than two readings of one clock can be: it was set back, so the silence is counted from here.
    UPDATE lease_sessions SET seen_at = now WHERE id IN (
        SELECT id FROM lease_sessions WHERE state = 'open' AND seen_at > now + ttl FOR UPDATE SKIP LOCKED
    );
    SELECT array_agg(id) INTO silent FROM (
        SELECT id FROM lease_sessions WHERE state = 'open' AND seen_at < now - ttl FOR UPDATE SKIP LOCKED
    ) s;
    IF silent IS NOT NULL THEN
        wanted := wanted || ARRAY(
            SELECT account FROM lease_shares
            WHERE session = ANY (silent) AND lent > 0 AND left(account, 1) IN ('l', 'p')
        );
    END IF;
    IF EXISTS (SELECT FROM unnest(own) AS u WHERE NOT EXISTS (SELECT FROM lease_accounts WHERE id = u)) THEN
        INSERT INTO lease_accounts (id, settled, lent, sharers)
        SELECT DISTINCT u, 0, 0, 0 FROM unnest(own) AS u ORDER BY u
        ON CONFLICT DO NOTHING;
    END IF;
    PERFORM FROM lease_accounts WHERE id = ANY (wanted) ORDER BY id FOR UPDATE;
    IF silent IS NOT NULL THEN
        now := lease_now(clock);
        WITH expired AS (
            UPDATE lease_shares s SET lent = 0 FROM lease_shares old
            WHERE s.session = old.session AND s.account = old.account
            AND s.session = ANY (silent) AND s.lent > 0 AND left(s.account, 1) IN ('l', 'p')
            RETURNING s.account, old.lent
        )
        UPDATE lease_accounts a SET lent = a.lent - e.lent, filled_at = now
        FROM (SELECT account, sum(lent)::bigint AS lent FROM expired GROUP BY account) e WHERE a.id = e.account;
        UPDATE lease_sessions SET state = 'silent' WHERE id = ANY (silent);
    END IF;
END
$$
""",
    "lease_borrow(text, bigint, jsonb, float8, float8)": """
CREATE FUNCTION lease_borrow(who text, number bigint, requests jsonb, ttl float8, clock float8)
RETURNS TABLE (granted bigint, remaining bigint, sharing int) LANGUAGE plpgsql AS $$
DECLARE
    now float8;
    request record;
    pot lease_accounts;
    elsewhere numeric;
    free numeric;
    joins int;
    set_back boolean;
BEGIN
    IF NOT lease_enter(who, number, clock) THEN
        RAISE EXCEPTION USING ERRCODE = 'PSOVT', MESSAGE = 'overtaken by a later message';
    END IF;
    PERFORM lease_lock(
        ARRAY(SELECT r ->> 'id' FROM jsonb_array_elements(requests) AS r),
        ARRAY(SELECT c FROM jsonb_array_elements(requests) AS r, jsonb_array_elements_text(r -> 'counted') AS c),
        ttl, clock
    );
    now := lease_now(clock);
    FOR request IN
        SELECT * FROM jsonb_to_recordset(requests) AS r (
            id text, "limit" bigint, rate float8, counted text[], ends_at float8, want bigint, least bigint
        )
    LOOP
        SELECT * INTO STRICT pot FROM lease_accounts WHERE id = request.id;
        set_back := false;
        CASE left(request.id, 1)
        WHEN 'b' THEN
            SELECT coalesce(sum(a.settled::numeric + a.lent), 0) INTO elsewhere FROM lease_accounts a
            WHERE a.id = ANY (request.counted) AND a.id <> request.id;
            free := request."limit" - pot.settled::numeric - pot.lent - elsewhere;
        WHEN 'l' THEN
            set_back := pot.filled_at > now;
            pot.level := lease_filled(pot, request."limit", request.rate, now);
            pot.filled_at := now;
            free := floor(pot.level);
        WHEN 'p' THEN
            free := request."limit" - pot.lent;
        END CASE;
        granted := CASE WHEN free >= request.want THEN request.want WHEN free >= request.least THEN free ELSE 0 END;
        IF granted > 0 THEN
            INSERT INTO lease_shares AS s (session, account, settled, lent) VALUES (who, request.id, 0, granted)
            ON CONFLICT (session, account) DO UPDATE SET lent = s.lent + granted
            RETURNING (xmax = 0)::int INTO joins;
            UPDATE lease_accounts a SET lent = a.lent + granted, level = pot.level - granted,
                filled_at = pot.filled_at, sharers = a.sharers + joins, ends_at = request.ends_at
            WHERE a.id = request.id;
            pot.sharers := pot.sharers + joins;
        ELSIF set_back THEN
            UPDATE lease_accounts a SET level = pot.level, filled_at = now WHERE a.id = request.id;
        END IF;
        remaining := free - granted;
        sharing := greatest(pot.sharers, 1);
        RETURN NEXT;
    END LOOP;
END
$$
""",
    "lease_sync(text, bigint, jsonb, float8, float8)": """
CREATE FUNCTION lease_sync(who text, number bigint, reports jsonb, ttl float8, clock float8)
RETURNS TABLE (used bigint, lent bigint, sharing int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    now float8;
    report record;
    pot lease_accounts;
    share lease_shares;
    spent bigint;
    kept bigint;
BEGIN
    IF lease_enter(who, number, clock) THEN
        PERFORM lease_lock(ARRAY(SELECT r ->> 'id' FROM jsonb_array_elements(reports) AS r), '{}', ttl, clock);
        now := lease_now(clock);
        FOR report IN
            SELECT * FROM jsonb_to_recordset(reports) AS r (
                id text, "limit" bigint, rate float8, ends_at float8, settled bigint, lent bigint
            )
        LOOP
            SELECT * INTO STRICT pot FROM lease_accounts WHERE id = report.id;
            SELECT * INTO share FROM lease_shares s WHERE s.session = who AND s.account = report.id;
            spent := greatest(0, report.settled - coalesce(share.settled, 0));
            kept := report.lent - coalesce(share.lent, 0);
            CONTINUE WHEN spent = 0 AND kept = 0;
            IF left(report.id, 1) = 'l' THEN
                pot.level := lease_filled(pot, report."limit", report.rate, now) - kept - spent;
                pot.filled_at := now;
            END IF;
            INSERT INTO lease_shares AS s (session, account, settled, lent)
            VALUES (who, report.id, report.settled, report.lent)
            ON CONFLICT (session, account) DO UPDATE SET settled = s.settled + spent, lent = report.lent;
            UPDATE lease_accounts a SET settled = a.settled + spent, lent = a.lent + kept, level = pot.level,
                filled_at = pot.filled_at, ends_at = report.ends_at,
                sharers = a.sharers + (share.session IS NULL)::int
            WHERE a.id = report.id;
        END LOOP;
        IF mod(number, 256) = 0 THEN
            PERFORM lease_forget(clock);
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM lease_state(reports, clock);
END
$$
""",
    "lease_state(jsonb, float8)": """
CREATE FUNCTION lease_state(accounts jsonb, clock float8)
RETURNS TABLE (used bigint, lent bigint, sharing int) LANGUAGE sql VOLATILE AS $$
    SELECT
        CASE left(r.id, 1)
        WHEN 'b' THEN (
            SELECT coalesce(sum(o.settled::numeric + o.lent), 0)::bigint FROM lease_accounts o
            WHERE o.id = r.id OR o.id = ANY (r.counted)
        )
        WHEN 'l' THEN CASE WHEN a.id IS NULL THEN 0
            ELSE r."limit" - floor(lease_filled(a, r."limit", r.rate, lease_now(clock)))::bigint END
        ELSE coalesce(a.lent, 0)
        END,
        coalesce(a.lent, 0),
        greatest(coalesce(a.sharers, 0), 1)
    FROM ROWS FROM (
        jsonb_to_recordset(accounts) AS (id text, "limit" bigint, rate float8, counted text[])
    ) WITH ORDINALITY AS r (id, "limit", rate, counted, place)
    LEFT JOIN lease_accounts a ON a.id = r.id
    ORDER BY r.place
$$
""",
    "lease_close(text, jsonb, float8, float8)": """
CREATE FUNCTION lease_close(who text, finally jsonb, ttl float8, clock float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now float8;
    each record;
BEGIN
    now := lease_now(clock);
    INSERT INTO lease_sessions AS known (id, seq, seen_at, state) VALUES (who, 0, now, 'closed')
    ON CONFLICT (id) DO UPDATE SET state = 'closed', seen_at = now WHERE known.state <> 'closed';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM lease_lock(
        ARRAY(SELECT k FROM jsonb_object_keys(finally) AS k WHERE left(k, 1) = 'b'),
        ARRAY(SELECT account FROM lease_shares WHERE session = who),
        ttl, clock
    );
    now := lease_now(clock);
    FOR each IN
        SELECT k AS account, coalesce(s.settled, 0) AS settled, coalesce(s.lent, 0) AS lent,
            greatest(0, (finally ->> k)::bigint - coalesce(s.settled, 0)) AS spent, (s.session IS NOT NULL)::int AS shared
        FROM (
            SELECT jsonb_object_keys(finally) AS k UNION SELECT account FROM lease_shares WHERE session = who
        ) named
        LEFT JOIN lease_shares s ON s.session = who AND s.account = k
    LOOP
        UPDATE lease_accounts a SET settled = a.settled + each.spent, lent = a.lent - each.lent,
            level = a.level + greatest(0, each.lent - each.spent),
            filled_at = CASE WHEN a.filled_at IS NULL THEN NULL ELSE now END,
            sharers = a.sharers - each.shared
        WHERE a.id = each.account;
    END LOOP;
    DELETE FROM lease_shares WHERE session = who;
END
$$
""",
    "lease_reset(text, bigint, float8)": """
CREATE FUNCTION lease_reset(which text, burst bigint, clock float8) RETURNS void LANGUAGE sql AS $$
    UPDATE lease_accounts SET settled = 0, level = CASE WHEN left(id, 1) = 'l' THEN burst - lent END,
        filled_at = CASE WHEN left(id, 1) = 'l' THEN lease_now(clock) END
    WHERE id = which
$$
""",
    # What ended more than an hour ago, and sessions that were closed more than a month ago. Ends are by the real clock.
    "lease_forget(float8)": """
CREATE FUNCTION lease_forget(clock float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ended text[];
BEGIN
    SELECT array_agg(id) INTO ended FROM (
        SELECT id FROM lease_accounts WHERE ends_at < lease_now(NULL) - 3600 LIMIT 256 FOR UPDATE SKIP LOCKED
    ) e;
    IF ended IS NOT NULL THEN
        DELETE FROM lease_shares WHERE account = ANY (ended);
        DELETE FROM lease_accounts WHERE id = ANY (ended);
    END IF;
    DELETE FROM lease_sessions WHERE id IN (
        SELECT id FROM lease_sessions WHERE state = 'closed' AND seen_at < lease_now(clock) - 30 * 86400
        LIMIT 256 FOR UPDATE SKIP LOCKED
    );
END
$$
""",
}
