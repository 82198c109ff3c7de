-- One row: its revision counts the changes of files, statuses and good. A writer increments it first and holds
-- its lock until the commit, so a reader that has seen a revision has seen all lower ones.
CREATE TABLE fleet (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
);
INSERT INTO fleet (revision) VALUES (0);

-- The operators' files. A removed file keeps its row, so that its removal has a revision.
CREATE TABLE files (
    path text PRIMARY KEY,
    content text,
    revision bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL
);
CREATE INDEX files_revision ON files (revision);

-- The newest status of each session that its router has posted; NULL after the operator changed the file.
CREATE TABLE statuses (
    router text NOT NULL,
    uuid text NOT NULL,
    entry json,
    revision bigint NOT NULL,
    PRIMARY KEY (router, uuid)
);
CREATE INDEX statuses_revision ON statuses (revision);

-- The last valid version of each unit of an answer.
CREATE TABLE good (
    router text NOT NULL,
    call text NOT NULL,
    units json NOT NULL,
    PRIMARY KEY (router, call)
);

-- The newest heartbeat and report of each router, which do not expire.
CREATE TABLE newest (
    router text NOT NULL,
    kind text NOT NULL,
    received_at timestamptz NOT NULL,
    body json NOT NULL,
    PRIMARY KEY (router, kind)
) WITH (fillfactor = 70);

-- All posts, in one partition for each hour. No default partition: a post has always a partition that expires.
CREATE TABLE posts (
    router text NOT NULL,
    kind text NOT NULL,
    received_at timestamptz NOT NULL,
    body json NOT NULL
) PARTITION BY RANGE (received_at);
CREATE INDEX posts_router ON posts (router, received_at);

-- Creates the partitions of this hour and the next, and drops those that are older than `kept`.
CREATE FUNCTION keep_partitions(kept interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    begins timestamptz;
    partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('moenet partitions'));
    FOR hour IN 0..1 LOOP
        begins := to_timestamp(floor(extract(epoch FROM now()) / 3600) * 3600 + hour * 3600);
        partition := 'posts_' || to_char(begins AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
        IF to_regclass(partition) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF posts FOR VALUES FROM (%L) TO (%L)',
                partition, begins, begins + interval '1 hour');
        END IF;
    END LOOP;
    FOR partition IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'posts'::regclass
            AND relname < 'posts_' || to_char((now() - kept - interval '1 hour') AT TIME ZONE 'UTC', 'YYYYMMDDHH24')
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
    END LOOP;
END $$;

-- How far a change of the network has come, and which routers may drain. One row; the version counts its changes, so
-- that of two instances that decide at one moment one is refused.
CREATE TABLE record (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    record json NOT NULL
);

-- The lists that each router was served, one row for each change of a list, so that two instances lose none. The entry
-- has all fields; the newest ones of each router stay.
CREATE TABLE served (
    router text NOT NULL,
    list text NOT NULL,
    at timestamptz NOT NULL,
    entry json NOT NULL,
    PRIMARY KEY (router, list, at)
);

-- Who changed which files, added by the transaction of the change.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    entry json NOT NULL
);
CREATE INDEX audit_at ON audit (at);
