-- Data directories of servers with files of a run that no other one has. The version grows whenever they change, so that
-- whoever takes them over takes back no later note.
CREATE TABLE run_files (
    run     INTEGER NOT NULL,
    home    TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (run, home)
) STRICT;
