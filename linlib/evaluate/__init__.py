"""What a decoder can do: harness tasks, layer probes, and stories that it continues and are judged.

Modules are imported on first use, since the libraries behind them are slow to import.
"""

from importlib import import_module


def __getattr__(name: str) -> object:
    """Import a module of this room, or `probe_layers`, when it is first used."""
    if name == "probe_layers":
        return import_module("linlib.evaluate.probes").probe_layers
    if name not in ("generate", "harness", "judge", "probes"):
        raise AttributeError(f"module 'linlib.evaluate' has no attribute '{name}'")
    return import_module(f"linlib.evaluate.{name}")
