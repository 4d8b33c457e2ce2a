"""What each operation takes and answers, for the OpenAPI document: written by hand, compared by tests."""
