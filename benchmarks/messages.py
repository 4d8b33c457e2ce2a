"""The bytes of the requests that the benchmarks send."""

import msgspec

KEY = "benchmark-admin-key"


def message(method: str, path: str, body: object = None) -> tuple[bytes, bytes]:
    """Give a request that needs no key of its own."""
    before, after = keyed_message(method, path, body)
    return before.removesuffix(b"idempotency-key: ") + after.removeprefix(b"\r\n"), b""


def keyed_message(method: str, path: str, body: object = None) -> tuple[bytes, bytes]:
    """Give what stands before and after the idempotency key of a request."""
    content = b"" if body is None else msgspec.json.encode(body)
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {KEY}",
    ]
    if content:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    lines.append("idempotency-key: ")
    return "\r\n".join(lines).encode(), b"\r\n\r\n" + content


def reservation_messages(
    skus: list[str], path: str = "/v1/reservations"
) -> list[tuple[bytes, bytes]]:
    """Give one reservation of one unit for each SKU."""
    return [
        keyed_message(
            "POST",
            path,
            {"channel": "web", "lines": [{"sku": sku, "quantity": 1}], "ttl_seconds": 900},
        )
        for sku in skus
    ]
