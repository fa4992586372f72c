"""From a model and images to the arrays of a store: what is computed, and the pass that does."""
