//! Runs the simulations by the seed, on all processors:
