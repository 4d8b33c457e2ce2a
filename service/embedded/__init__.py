"""The Redis and PostgreSQL that `ringfence up` starts for itself where none is named."""
