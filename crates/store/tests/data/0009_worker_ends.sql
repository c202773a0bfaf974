INSERT INTO worker_ends (worker, ended, failed) VALUES ('w1', 7, 2);
