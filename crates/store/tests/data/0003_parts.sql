-- The third schema holds nothing new; what is there is found by new ways.

UPDATE runs SET note = 'seen by the third' WHERE key = 2;
