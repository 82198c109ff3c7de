-- How far a change of the network has come, and which routers may drain. One row; the version counts its changes, so
-- that of two instances that decide at one moment one is refused.
CREATE TABLE record (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    record json NOT NULL
);
