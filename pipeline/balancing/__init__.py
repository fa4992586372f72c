"""Heads changed on images without labels: what the images say, and what the heads' files tell."""
