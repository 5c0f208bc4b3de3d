"""A static site of a store, for a bucket or a folder: products with their likes, outfits, looks, and where they come from.

index.html with its style; app.js; data/NAME-DIGEST.js, which scripts load as they need them (a page from file:// may fetch
nothing, but load scripts); thumbs/xx/DIGEST.jpg. Names are of the content, so that a site that is written again writes what
changed, and index.html last: a reader sees the old site or the new one.
"""
