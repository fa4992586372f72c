"""The stages of the path; they do not import each other, they meet through stores and heads."""
