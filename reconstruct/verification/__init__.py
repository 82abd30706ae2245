"""Is a claimed recipe what the weights follow? Tensor by tensor, bit by bit."""
