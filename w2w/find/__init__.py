"""Find: photos to their garments, garments to products, in this process or on workers."""
