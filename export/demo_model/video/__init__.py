"""The demo model's memory: moving scenes, training by clips, tracking, and its measurement."""
