"""What a person sees of a run: console, JSON, table and plots."""
