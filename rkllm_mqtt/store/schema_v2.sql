-- Version 2: conversations that the daemon keeps for its clients.

CREATE TABLE conversations (
  seq INTEGER PRIMARY KEY,
  target TEXT NOT NULL,
  client TEXT NOT NULL,
  id TEXT NOT NULL,
  used_at REAL NOT NULL, -- journal clock; what is oldest goes first
  UNIQUE (target, client, id)
);

CREATE INDEX conversations_by_use ON conversations (used_at);

-- One row for each turn that succeeded: the messages of the question and of its answer, as JSON.
CREATE TABLE conversation_turns (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation INTEGER NOT NULL REFERENCES conversations (seq) ON DELETE CASCADE,
  messages TEXT NOT NULL
);

CREATE INDEX conversation_turns_by_conversation ON conversation_turns (conversation, seq);
