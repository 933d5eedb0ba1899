"""Builds, starts and looks after the containers of `just deploy`."""
