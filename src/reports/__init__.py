"""Pages about runs: one HTML file each, which opens offline."""
