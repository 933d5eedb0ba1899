"""What callers hand in: images and prompts, checked and made into tensors."""
