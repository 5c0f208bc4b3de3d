"""What is wrong in the catalog: the morning's list for a merchandiser."""
