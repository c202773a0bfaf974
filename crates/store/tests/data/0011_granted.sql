UPDATE attempts SET request = '{"cpu":2,"gpus":{"share":0.5}}' WHERE node = 'local';
