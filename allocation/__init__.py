"""The engine: who may have a unit. It knows no HTTP, no storefront and no environment."""
