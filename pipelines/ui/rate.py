"""How often one address may ask for work."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 10_000  # addresses


class RateLimit:
    """A token bucket for each address: `a_minute` at once, then one every 60 / `a_minute` seconds.

    Addresses of IPv6 count by their /64, which one machine can roam at will.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic):
        self.a_minute, self._clock = a_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """0 and one token less, or the seconds until there is one."""
        key, now = _network(address), self._clock()
        tokens, last = self._buckets.pop(key, (float(self.a_minute), now))
        tokens = min(float(self.a_minute), tokens + (now - last) * self.a_minute / 60)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) * 60 / self.a_minute


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
