"""Many shards as one: what each SKU's shard decides, put together for carts and movements that touch several."""
