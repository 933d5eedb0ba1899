"""The demo model: a micro SAM 2.1 trained on procedural scenes of distinct objects."""
