-- What an attempt was granted of its node, so that a restart counts the same, whatever its templates come to by then.
ALTER TABLE attempts ADD COLUMN request TEXT COLLATE "C";
