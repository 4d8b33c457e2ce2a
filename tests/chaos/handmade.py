"""Small runs made by hand: one SKU in one place, sold as it should be, for tests to spoil."""

from base64 import b64encode
from typing import Any

import msgspec
from chaos.history import Attempt, Operation
from chaos.record import Record, Row
from msgspec import Raw

from allocation.commands import MovedLine, Movement
from allocation.folding import (
    CONFIGURATION_KEY,
    EVENTS_KEY,
    RESERVATIONS_KEY,
    STOCK_KEY,
    FoldedState,
)
from allocation.journal import GENESIS_HASH, Entry, EventRecord, chain
from allocation.model import Channel, Line, Location, Reservation, Shortage, Stock
from allocation.outcomes import Kind, State

SKU, PLACE = "MUG", "NORTH"
NEVER = 10**9
_pack = msgspec.msgpack.Encoder().encode


class Story:
    """A run that goes as it should; its attempts, entries and final figures may then be changed."""

    def __init__(self, units: int = 5) -> None:
        self.attempts: list[Attempt] = []
        self.entries: list[Entry] = []
        self.epochs: list[int] = []
        self.final: dict[str, Any] = {
            "unresolved": [],
            "faults": [],
            "ready_seconds": 0.1,
            "agreed_seconds": 0.1,
            "exit_statuses": {"service-0": [0]},
            "ended_by_themselves": {"service-0": []},
        }
        self.logs: dict[str, str] = {}
        self.at_ms = 1_000_000
        self.on_hand = self.reserved = self.committed = 0
        self._line = 0
        self._open(units)

    def _open(self, units: int) -> None:
        for name, record in (
            (f"location:{PLACE}", Location(1, "")),
            ("channel:web", Channel(2, "", (PLACE,))),
        ):
            attempt = self.ask("configure", name.partition(":")[2])
            self.write(Kind.CONFIGURED, name, configuration=[(name, Raw(_pack(record)))])
            self.end(attempt, "ok", {"version": self.next - 1})
        attempt = self.ask("configure", SKU)
        self.write(Kind.CONFIGURED, f"sku:{SKU}", stock=[(SKU, Stock(3, ()))])
        self.end(attempt, "ok", {"version": 3})
        self.receive("opening", units)

    # What clients do.

    def ask(self, kind: str, key: str, body: Any = None) -> Attempt:
        """Let a client ask for something; until told otherwise nobody knows what came of it."""
        self._line += 1
        operation = Operation(len(self.attempts) + 1, "client", kind, key, sent(body))
        attempt = Attempt(operation, "service-0", self._line, float(self._line))
        self.attempts.append(attempt)
        return attempt

    def end(self, attempt: Attempt, verdict: str, answer: Any = None, slug: str = "") -> Attempt:
        """Let a client learn what came of it."""
        self._line += 1
        attempt.completed_at, attempt.completed_seconds = self._line, float(self._line)
        attempt.verdict, attempt.told, attempt.slug = verdict, told(answer), slug
        attempt.status = 200
        return attempt

    def receive(self, event: str, units: int) -> Attempt:
        """Let goods come in."""
        line = {"sku": SKU, "location": PLACE, "quantity": units}
        body = {"source": "wms", "event_id": event, "kind": "receipt", "lines": [line]}
        attempt = self.ask("move", event, body)
        self.on_hand += units
        moved = (Movement.RECEIPT, 0, "", [MovedLine(SKU, PLACE, units)])
        self.write(
            Kind.MOVED,
            f"wms\x1f{event}",
            events=[(f"wms\x1f{event}", EventRecord("", self.next, NEVER))],
            stock=[self.stock()],
            detail=Raw(_pack(moved)),
        )
        return self.end(attempt, "ok", {"applied": True, "duplicate": False})

    def reserve(self, key: str, units: int = 1, ttl_seconds: int = 900) -> Attempt:
        """Let somebody hold units."""
        attempt = self.ask("reserve", key, cart(units, ttl_seconds))
        self.reserved += units
        record = self.hold(units, self.at_ms + ttl_seconds * 1000)
        self.write(Kind.HELD, key, reservations=[(key, record)], stock=[self.stock()])
        self.end(attempt, "ok", answer(key, record))
        attempt.status = 201
        return attempt

    def refuse(self, key: str, units: int) -> Attempt:
        """Let somebody ask for more than there is."""
        attempt = self.ask("reserve", key, cart(units))
        left = self.on_hand - self.reserved - self.committed
        lack = (Shortage(SKU, units, left, "on_hand"),)
        record = Reservation(State.REFUSED, self.next, "", "web", NEVER, "", "", (), lack)
        self.write(Kind.REFUSED, key, reservations=[(key, record)])
        return self.end(attempt, "fail", slug="insufficient-stock")

    def finish(self, kind: str, key: str) -> Attempt:
        """Let a hold of one unit be confirmed, released or, by itself, expire."""
        ended, state = {
            "confirm": (Kind.COMMITTED, State.COMMITTED),
            "release": (Kind.RELEASED, State.RELEASED),
            "expire": (Kind.EXPIRED, State.EXPIRED),
        }[kind]
        attempt = self.ask(kind, key)
        self.reserved -= 1
        self.committed += kind == "confirm"
        deadline_ms = 0 if kind == "confirm" else NEVER
        record = msgspec.structs.replace(self.hold(1, deadline_ms), state=state)
        self.write(ended, key, reservations=[(key, record)], stock=[self.stock()])
        return self.end(attempt, "ok", answer(key, record))

    # What the ledger has.

    @property
    def next(self) -> int:
        return len(self.entries) + 1

    def hold(self, units: int, deadline_ms: int) -> Reservation:
        lines = (Line(SKU, units, PLACE, 0, 0, pinned=False),)
        return Reservation(State.HELD, self.next, "", "web", deadline_ms, "", "", lines, ())

    def stock(self) -> tuple[str, Stock]:
        uses = ("web", self.reserved, self.committed) if self.reserved or self.committed else ()
        pool = (PLACE, self.on_hand, 0, 0, 0, 0, 0, len(uses) // 3, *uses)
        return SKU, Stock(self.next, pool)

    def write(self, kind: Kind, subject: str, **changes: Any) -> None:
        """Add a row to the ledger."""
        parts: dict[str, Any] = {
            name: [] for name in ("reservations", "stock", "events", "configuration", "moves")
        }
        parts["detail"] = Raw(b"\xc0")
        self.entries.append(Entry(kind, self.at_ms, subject, **(parts | changes)))
        self.epochs.append(1)
        self.at_ms += 1

    def rows(self) -> list[Row]:
        """Give the ledger, chained."""
        rows: list[Row] = []
        latest = GENESIS_HASH
        for sequence, (entry, epoch) in enumerate(zip(self.entries, self.epochs, strict=True), 1):
            body = _pack(entry)
            latest = chain(latest, body)
            head = (entry.at_ms, int(entry.kind), entry.subject)
            rows.append(Row(sequence, epoch, *head, latest, body))
        return rows

    def record(self, rows: list[Row] | None = None) -> Record:
        """Give what is known of the run, with a gate and figures that are the ledger's."""
        rows = self.rows() if rows is None else rows
        folded = FoldedState()
        for row in rows:
            folded.apply(row.body)
        head = {"epoch": rows[-1].epoch, "last_sequence": len(rows), "last_hash": rows[-1].hash}
        gate: dict[str, Any] = {
            "meta": {
                "epoch": str(head["epoch"]),
                "sequence": str(len(rows)),
                "hash": rows[-1].hash,
            },
            "deadlines": list(folded.deadlines()),
            "moves": [],
        }
        for name, key in (
            ("stock", STOCK_KEY),
            ("reservations", RESERVATIONS_KEY),
            ("events", EVENTS_KEY),
            ("configuration", CONFIGURATION_KEY),
        ):
            gate[name] = {
                field: b64encode(packed).decode() for field, packed in folded.records[key].items()
            }
        final = {
            "served_until_ms": self.at_ms,
            "figures_read_ms": self.at_ms + 60_000,
            "gate": gate,
            "head": head,
            "figures": {"service-0": self.figures()},
        }
        return Record(self.attempts, rows, final | self.final, self.logs)

    def figures(self) -> dict[str, Any]:
        """Give what a service should say in the end."""
        version = max(sequence for sequence, entry in enumerate(self.entries, 1) if entry.stock)
        return {SKU: self.told_stock() | {"version": version}}

    def told_stock(self) -> dict[str, Any]:
        """Give what a service should say of the stock now."""
        pool = {
            "location": PLACE,
            "on_hand": self.on_hand,
            "reserved": self.reserved,
            "committed": self.committed,
            "available": self.on_hand - self.reserved - self.committed,
        }
        return {"sku": SKU, "version": self.next - 1, "locations": [pool]}


def sent(body: Any) -> Raw:
    """Write a body as a client sends it."""
    return Raw(told(body))


def told(answer: Any) -> bytes:
    """Write an answer as a client gets it."""
    return msgspec.json.encode(answer)


def cart(units: int, ttl_seconds: int = 900) -> dict[str, Any]:
    """Ask for some of the one thing there is."""
    lines = [{"sku": SKU, "quantity": units}]
    return {"channel": "web", "lines": lines, "ttl_seconds": ttl_seconds}


def answer(key: str, known: Reservation) -> dict[str, Any]:
    """Show a reservation as the service should."""
    shown: dict[str, Any] = {
        "reservation_id": key,
        "state": known.state.name.lower(),
        "channel": known.channel,
        "lines": [
            {"sku": line.sku, "quantity": line.quantity, "location": line.location}
            for line in known.lines
        ],
    }
    if known.state is State.HELD:
        seconds, milliseconds = divmod(known.deadline_ms, 1000)
        minutes, seconds = divmod(seconds, 60)
        moment = f"1970-01-01T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        shown["expires_at"] = f"{moment}.{milliseconds:03}Z"
    return shown
