"""Model forensics from weights alone."""
