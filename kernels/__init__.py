"""Fused, memory-bound operations on flat arrays. This package knows numbers, not models.

Each operation is one stem: `gram` (sums of products of deltas), `pick` (a seeded sample of informative elements) and
`replay` (predict, round, compare, count). Beside it stand `gram_reference`, ... in float64 torch, which define the
result, and `gram_processor`, ... in numba, which are fast. `select` chooses.
"""
