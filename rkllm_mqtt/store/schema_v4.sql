-- Version 4: registered prefixes, the beginnings of prompts that clients come back to.

CREATE TABLE prefixes (
  client TEXT NOT NULL,
  name TEXT NOT NULL,
  request TEXT NOT NULL, -- JSON of core.chat.ChatRequest: its model, messages and tools
  ttl_s REAL NOT NULL, -- not used for so long, it is forgotten
  used_at REAL NOT NULL, -- journal clock
  uses TEXT NOT NULL, -- JSON of core.prefixes.Uses: by hour of the day
  UNIQUE (client, name)
);
