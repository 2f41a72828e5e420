"""What a suite will cost before anything is computed. Loads neither torch nor numpy."""
