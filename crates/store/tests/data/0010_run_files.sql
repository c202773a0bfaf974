INSERT INTO run_files (run, home, version) VALUES (2, 'h1', 3), (99, 'h1', 1);
