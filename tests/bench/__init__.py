"""How fast the dock is, beside tools that do parts of its work. ``make bench`` runs all of it."""
