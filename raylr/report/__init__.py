"""What a study found, as text and as one HTML page."""
