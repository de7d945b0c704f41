"""`raylr serve`: the page of a study that may still be running. It only reads the study's folder."""
