"""Recipes by name, as YAML; `pipeline.config.load_recipe` reads them."""
