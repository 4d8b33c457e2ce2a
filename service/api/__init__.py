"""The HTTP contract: requests in, problems and answers out."""
