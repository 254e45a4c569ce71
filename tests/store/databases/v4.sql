-- A journal as version 4 of the schema left it; each later version must open it.
PRAGMA application_id = 1380666445;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE clock (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  journal_s REAL NOT NULL,
  boot_id TEXT NOT NULL,
  uptime_s REAL NOT NULL,
  wall_s REAL NOT NULL
);
INSERT INTO "clock" VALUES(1,4242.5,'2f1d0c3e-0000-4000-8000-000000000001',5242.5,1800000000.0);
CREATE TABLE conversation_turns (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation INTEGER NOT NULL REFERENCES conversations (seq) ON DELETE CASCADE,
  messages TEXT NOT NULL
);
INSERT INTO "conversation_turns" VALUES(1,1,'[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]');
CREATE TABLE conversations (
  seq INTEGER PRIMARY KEY,
  target TEXT NOT NULL,
  client TEXT NOT NULL,
  id TEXT NOT NULL,
  used_at REAL NOT NULL, -- journal clock; what is oldest goes first
  UNIQUE (target, client, id)
);
INSERT INTO "conversations" VALUES(1,'rock','kitchen','talk',4242.5);
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
INSERT INTO "jobs" VALUES(1,'rock','kitchen','waiting',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','waiting','interactive',0,0,0,1800000000.5,9000.25,NULL,'{"reply":"rkllm/rock/client/kitchen/reply"}','none');
INSERT INTO "jobs" VALUES(2,'rock','kitchen','running',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','running','normal',2,1,1,1800000000.5,NULL,NULL,'{"reply":"rkllm/rock/client/kitchen/reply"}','none');
INSERT INTO "jobs" VALUES(3,'rock','kitchen','done',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','succeeded','normal',1,0,0,1800000000.5,NULL,4242.5,'{"reply":"rkllm/rock/client/kitchen/reply"}','done');
INSERT INTO "jobs" VALUES(4,'rock','kitchen','failed',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','failed','background',0,0,0,1800000000.5,NULL,4242.5,'{"reply":"rkllm/rock/client/kitchen/reply"}','pending');
CREATE TABLE lasts (
  target TEXT NOT NULL,
  client TEXT NOT NULL,
  expires_at REAL NOT NULL,
  PRIMARY KEY (target, client)
) WITHOUT ROWID;
INSERT INTO "lasts" VALUES('rock','kitchen',90000.0);
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('session','rkllm-mqtt-rock-1d2e');
INSERT INTO "meta" VALUES('uid','5f0c');
CREATE TABLE outcomes (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  outcome BLOB NOT NULL
);
INSERT INTO "outcomes" VALUES(3,X'7B2274657874223A226869227D');
INSERT INTO "outcomes" VALUES(4,X'7B226572726F72223A317D');
CREATE TABLE prefixes (
  client TEXT NOT NULL,
  name TEXT NOT NULL,
  request TEXT NOT NULL, -- JSON of core.chat.ChatRequest: its model, messages and tools
  ttl_s REAL NOT NULL, -- not used for so long, it is forgotten
  used_at REAL NOT NULL, -- journal clock
  uses TEXT NOT NULL, -- JSON of core.prefixes.Uses: by hour of the day
  UNIQUE (client, name)
);
INSERT INTO "prefixes" VALUES('kitchen','voice','{"max_tokens":1,"messages":[{"role":"system","content":"You are a home."}],"model":"qwen","tools":[]}',604800.0,4242.5,'[[0,0,0,0,0,0,0,3.2,1,0,0,0,0,0,0,0,0,0,0,2.5,0,0,0,0],2.44,739000]');
CREATE TABLE receipts (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  session TEXT NOT NULL,
  mid INTEGER NOT NULL,
  topic TEXT NOT NULL,
  sha256 BLOB NOT NULL,
  received_at REAL NOT NULL
);
INSERT INTO "receipts" VALUES(2,'s1',7,'rkllm/rock/client/kitchen/request',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F',4242.5);
CREATE TABLE carried (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  carried TEXT NOT NULL
);
INSERT INTO "carried" VALUES(3,'{"raw":["One"," day"],"tokens":2}');
CREATE TABLE requests (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  request TEXT NOT NULL
);
INSERT INTO "requests" VALUES(1,'{"prompt":"hello"}');
INSERT INTO "requests" VALUES(2,'{"prompt":"hello"}');
INSERT INTO "requests" VALUES(3,'{"prompt":"hello"}');
INSERT INTO "requests" VALUES(4,'{"prompt":"hello"}');
CREATE UNIQUE INDEX jobs_by_id ON jobs (target, client, id);
CREATE INDEX jobs_unfinished ON jobs (seq, state) WHERE finished_at IS NULL;
CREATE INDEX jobs_undelivered ON jobs (seq, state) WHERE delivery = 'pending';
CREATE INDEX jobs_settled ON jobs (finished_at, state)
  WHERE finished_at IS NOT NULL AND delivery <> 'pending';
CREATE INDEX receipts_by_mid ON receipts (session, mid);
CREATE INDEX conversations_by_use ON conversations (used_at);
CREATE INDEX conversation_turns_by_conversation ON conversation_turns (conversation, seq);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',4);
INSERT INTO "sqlite_sequence" VALUES('conversation_turns',1);
COMMIT;
