-- Who changed which files, added by the transaction of the change.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    entry json NOT NULL
);
CREATE INDEX audit_at ON audit (at);
