-- The node that an attempt was placed on.
ALTER TABLE attempts ADD COLUMN node TEXT;
