"""``python -m dockd`` is the ``dockd`` command."""

from dockd.cli.main import main

if __name__ == "__main__":
    main()
