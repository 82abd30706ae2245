"""Runs units of work and keeps what they find: measurement, full replay, the run store."""
