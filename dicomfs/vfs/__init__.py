"""What the archive looks like as files."""
