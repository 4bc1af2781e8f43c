"""``dockd target check``: the clauses of docs/upload-target.md, tried one by one on a live server."""
