"""The vector index: plan within budgets, train once, fill shards, verify, publish, search. Only this package imports faiss."""
