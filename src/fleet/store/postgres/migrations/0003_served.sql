-- The lists that each router was served, one row for each change of a list, so that two instances lose none. The entry
-- has all fields; the newest ones of each router stay.
CREATE TABLE served (
    router text NOT NULL,
    list text NOT NULL,
    at timestamptz NOT NULL,
    entry json NOT NULL,
    PRIMARY KEY (router, list, at)
);

INSERT INTO served (router, list, at, entry)
    SELECT router, entry->>'list', (entry->>'at')::timestamptz, entry
    FROM newest, json_array_elements(CASE json_typeof(body) WHEN 'array' THEN body ELSE '[]' END) AS entry
    WHERE kind = 'served' AND entry->>'list' IS NOT NULL AND entry->>'at' IS NOT NULL
    ON CONFLICT DO NOTHING;
DELETE FROM newest WHERE kind = 'served';
