"""Product sources (feeds, folders, archives) as one normalised stream of rows."""
