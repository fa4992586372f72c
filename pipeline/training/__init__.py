"""Training of stage 1: what one epoch does, and what makes a run repeatable and resumable."""
