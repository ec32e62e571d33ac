"""Corral's core: the daemon, the gateway, the keeper and what they share. No terminal code lives here."""


def program_version() -> str:
    """The installed program's version, or the source tree's if it runs uninstalled."""
    from importlib.metadata import PackageNotFoundError, version  # 15 ms that the console's first paint need not pay

    try:
        return version("corral")
    except PackageNotFoundError:
        return "0.1.0"
