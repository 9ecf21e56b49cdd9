"""Pure functions on dictionaries name -> tensor, and on histograms: the mathematics of the federation."""
