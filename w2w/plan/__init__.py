"""What a larger shop would need, from what this store's nights have cost."""
