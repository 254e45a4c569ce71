-- Version 3: answers that were interrupted and go on later.

-- JSON of core.carried.Carried: what the model has made so far, and what was published of it.
CREATE TABLE carried (
  seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  carried TEXT NOT NULL
);
