INSERT INTO recovery (kind, name, body) VALUES ('fleet', '', '{"incidents":1}');
