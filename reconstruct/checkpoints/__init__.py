"""What a checkpoint is, wherever it lies: references, headers, catalogs, byte sources and the pairing of tensors."""
