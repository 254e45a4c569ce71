-- Version 1 of the journal. States are words, so that a person with sqlite3 understands a row.
-- Times: *_at and deadline are seconds of the journal clock (table clock), except accepted_at,
-- which is Unix time for people.

-- Small on purpose: a change of state rewrites its row, and must not rewrite a long prompt with it.
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, -- order of acceptance; AUTOINCREMENT never gives a number twice
  target TEXT NOT NULL,
  client TEXT NOT NULL,
  id TEXT NOT NULL,
  sha256 BLOB NOT NULL,
  state TEXT NOT NULL
    CHECK (state IN ('waiting', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
  priority TEXT NOT NULL CHECK (priority IN ('interactive', 'normal', 'background')),
  attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  crashes INTEGER NOT NULL DEFAULT 0 CHECK (crashes >= 0),
  cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
  accepted_at REAL NOT NULL,
  deadline REAL,
  finished_at REAL,
  address TEXT NOT NULL,
  delivery TEXT NOT NULL DEFAULT 'none' CHECK (delivery IN ('none', 'pending', 'done', 'refused')),
  CHECK ((state IN ('waiting', 'running')) = (finished_at IS NULL)),
  CHECK (finished_at IS NOT NULL OR delivery = 'none')
);

CREATE UNIQUE INDEX jobs_by_id ON jobs (target, client, id);

-- Each row is in exactly one of these three, and each answers its question (and its count) alone.
CREATE INDEX jobs_unfinished ON jobs (seq, state) WHERE finished_at IS NULL;
CREATE INDEX jobs_undelivered ON jobs (seq, state) WHERE delivery = 'pending';
CREATE INDEX jobs_settled ON jobs (finished_at, state)
  WHERE finished_at IS NOT NULL AND delivery <> 'pending';

CREATE TABLE requests (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  request TEXT NOT NULL
);

CREATE TABLE outcomes (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  outcome BLOB NOT NULL
);

-- How a request without an id arrived: what proves that a redelivery is the same one.
CREATE TABLE receipts (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  session TEXT NOT NULL,
  mid INTEGER NOT NULL,
  topic TEXT NOT NULL,
  sha256 BLOB NOT NULL,
  received_at REAL NOT NULL
);

CREATE INDEX receipts_by_mid ON receipts (session, mid);

-- Which retained `last` topics are set, so that they are cleared even after a restart.
CREATE TABLE lasts (
  target TEXT NOT NULL,
  client TEXT NOT NULL,
  expires_at REAL NOT NULL,
  PRIMARY KEY (target, client)
) WITHOUT ROWID;

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- The newest reading of the journal clock beside the machine's own clocks.
CREATE TABLE clock (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  journal_s REAL NOT NULL,
  boot_id TEXT NOT NULL,
  uptime_s REAL NOT NULL,
  wall_s REAL NOT NULL
);
