"""Which of many candidates is worth a fit: dozens of models, a small sample of each."""
