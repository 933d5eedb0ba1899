"""Shows on a GPU machine that masks are right and how fast they come (`just gpu-check`)."""
