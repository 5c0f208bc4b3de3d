"""A static site of a store, for a bucket or a folder: products with similar ones, outfits, looks, and their sources.

index.html with its style; app.js; data/NAME-DIGEST.js, which scripts load on demand (a page from file:// may not fetch, but may
load scripts); thumbs/xx/DIGEST.jpg. Names are content digests, so rewriting a site writes only what changed, index.html last: a
reader sees the old site or the new one.
"""
