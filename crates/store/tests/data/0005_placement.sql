UPDATE attempts SET node = 'local' WHERE task = (SELECT min(task) FROM attempts);
