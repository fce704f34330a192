"""Model x windows -> tidy frame: linearity profiles, norms and cosines, token errors, losses."""

from importlib import import_module

_MODULES = {
    "windows": "StreamMoments TOKEN_GROUPS choose_layers collect_moments layer_passes",
    "profile": "linearity_profile profile_of_moments stream_norms",
    "errors": "TokenErrors error_counts error_statistics tail_statistics token_errors worst_tokens",
    "losses": "document_losses perplexity window_losses",
}
__all__ = sorted(" ".join(_MODULES.values()).split())


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    for module, names in _MODULES.items():
        if name in names.split():
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
