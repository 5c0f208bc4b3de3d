"""What a picture shows, in words that a filter knows: type, colour, gender, or whatever a shop's own feed tells."""
