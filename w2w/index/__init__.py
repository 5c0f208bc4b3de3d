"""The vector index: plan it under budgets, train once, fill shards, prove it, publish it, search it. Alone imports faiss."""
