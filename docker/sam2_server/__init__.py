"""Starts, watches and stops the Triton server that serves SAM 2.1."""
