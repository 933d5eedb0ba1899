"""Adapters for annotation tools as they are: each speaks its own contract to the one server behind."""
