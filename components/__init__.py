"""One room per pipeline step; each `step.py` is the step as one typed function."""
