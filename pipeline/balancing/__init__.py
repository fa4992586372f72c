"""Heads changed on images without labels: how those are seen, and what they say."""
