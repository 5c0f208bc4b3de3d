"""Getting bytes from other people's web servers."""
