"""One merge family a file: which coefficients it can give to its sources, and how to estimate its parameters."""
