"""Fixtures of the system tests."""

from __future__ import annotations

from fault_table import fault_record

__all__ = ["fault_record"]
