"""What is claimed of a checkpoint: merge recipes and model cards, read with the line of every fault."""
