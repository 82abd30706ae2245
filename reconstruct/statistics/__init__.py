"""What the numbers say: moments, lattices, interval fits, certificates, spikes and agreement. Pure functions."""
