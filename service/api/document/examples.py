"""What requests and answers look like, of one shop that sells shirts and mugs from two warehouses."""

from service.api.document.parts import Json

RESERVATION_ID = "checkout-8f1c"
_LINE = {"sku": "TEE-BLACK-M", "quantity": 2, "location": "LONDON"}

RESERVE: Json = {"channel": "web", "lines": [{"sku": "TEE-BLACK-M", "quantity": 2}]}
HELD: Json = {
    "reservation_id": RESERVATION_ID,
    "state": "held",
    "channel": "web",
    "lines": [_LINE],
    "expires_at": "2026-11-21T12:15:00.000Z",
}
COMMITTED: Json = {
    "reservation_id": RESERVATION_ID,
    "state": "committed",
    "channel": "web",
    "lines": [_LINE],
    "order_id": "1001",
}
AVAILABILITY: Json = {
    "channel": "web",
    "items": [{"sku": "TEE-BLACK-M", "available": 138, "version": 21}],
}

MOVEMENT: Json = {
    "source": "wms",
    "event_id": "goods-in-7",
    "kind": "receipt",
    "occurred_at": "2026-11-20T09:00:00Z",
    "lines": [{"sku": "TEE-BLACK-M", "location": "LONDON", "quantity": 20}],
}
MOVED: Json = {
    "applied": True,
    "duplicate": False,
    "source": "wms",
    "event_id": "goods-in-7",
    "lines": 1,
}
ORDER: Json = {
    "order_id": "M-7",
    "channel": "market",
    "lines": [{"sku": "LAST-ONE", "quantity": 2}],
}
RECORDED: Json = {
    "order_id": "M-7",
    "reservation_id": "order:market:M-7",
    "state": "committed",
    "channel": "market",
    "lines": [
        {"sku": "LAST-ONE", "quantity": 1, "location": "LONDON"},
        {"sku": "LAST-ONE", "quantity": 1, "location": "LEEDS"},
    ],
    "oversold": [{"sku": "LAST-ONE", "quantity": 1}],
}
STOCK: Json = {
    "sku": "TEE-BLACK-M",
    "version": 16,
    "locations": [
        {
            "location": "LONDON",
            "on_hand": 120,
            "unavailable": {"damaged": 0, "quality_control": 0},
            "reserved": 0,
            "committed": 2,
            "safety_stock": 5,
            "available": 113,
            "channels": [{"channel": "web", "reserved": 0, "committed": 2}],
        }
    ],
}

SNAPSHOT: Json = {
    "channel": "web",
    "cursor": 41,
    "items": [
        {"sku": "MUG-BLUE", "available": 140, "version": 12},
        {"sku": "TEE-BLACK-M", "available": 256, "version": 16},
    ],
}
DELTAS = """\
: the deltas follow

id: 42
data: {"sku":"MUG-BLUE","available":139,"version":18}

: still here

"""

STOREFRONT: Json = {"channel": "web", "url": "https://shop.example/ringfence"}
STOREFRONT_SET: Json = {
    "name": "shop",
    **STOREFRONT,
    "secret": "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
}
STOREFRONT_SHOWN: Json = {
    "name": "shop",
    **STOREFRONT,
    "state": "active",
    "pending": 0,
    "failing": 1,
    "delivered": 4,
    "oldest_undelivered_age_seconds": 3.2,
    "last_error": "It answered 500.",
}

DELIVERY: Json = {
    "kind": "receipt",
    "event_id": "goods-in-7",
    "occurred_at": "2026-11-20T09:00:00Z",
    "lines": [{"sku": "TEE-BLACK-M", "location": "LONDON", "quantity": 20}],
}
DELIVERED: Json = {
    "source": "wms",
    "webhook_id": "msg_2KWPBgLlAfxdpx2AI54pPJ85",
    "duplicate": False,
}
DEAD_LETTERS: Json = {
    "items": [
        {
            "id": 12,
            "source": "wms",
            "webhook_id": "msg_2KWPBgLlAfxdpx2AI54pPJ85",
            "received_at": "2026-11-21T12:00:00.000Z",
            "attempts": 1,
            "reason": "unknown-sku: SKU TEE-GREEN-M.",
            "body_start": '{"kind":"receipt","lines":[{"sku":"TEE-GREEN-M"',
        }
    ],
    "next": 12,
}
RETRIED: Json = {"id": 12, "state": "received"}

LOCATION: Json = {"name": "London warehouse"}
LOCATION_SET: Json = {"code": "LONDON", "name": "London warehouse", "version": 20}
CHANNEL: Json = {"name": "Web shop", "locations": ["LONDON", "LEEDS"]}
CHANNEL_SET: Json = {"code": "web", "version": 21, **CHANNEL}
SKU: Json = {
    "name": "T-shirt, black, M",
    "safety_stock": [{"location": "LONDON", "quantity": 5}],
}
SKU_SET: Json = {"code": "TEE-BLACK-M", "version": 22, **SKU}

READY: Json = {"status": "ready", "gate": "verified", "ledger": "timely"}
NOT_READY: Json = {"status": "not ready", "gate": "unverified", "ledger": "timely"}
METRICS = """\
# HELP ringfence_gate_verified 1 while the gate is verified.
# TYPE ringfence_gate_verified gauge
ringfence_gate_verified 1.0
"""
