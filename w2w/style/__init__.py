"""Looks alike: a photo in, posts whose people are dressed like it out, with the products that are worn in them."""
