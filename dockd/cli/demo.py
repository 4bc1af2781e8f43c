"""``dockd demo``: the whole job on this machine, with things broken on the way."""

from rich.console import Console


async def run_demo(*, keep: bool) -> int:
    """Run the demo and return the exit code; ``keep`` leaves it running until Ctrl-C."""
    Console().print("The demo is not built yet.", style="red")
    return 1
