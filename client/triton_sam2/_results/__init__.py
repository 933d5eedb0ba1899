"""What comes back: masks, their encodings, pictures and files."""
