"""Model specs and the models that they describe."""
