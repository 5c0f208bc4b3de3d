"""Crawling web sites."""
