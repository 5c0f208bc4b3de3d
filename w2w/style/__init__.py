"""Style: from a photo to posts whose people are dressed alike, with the products worn in them."""
