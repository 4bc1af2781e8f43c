"""The central store: receives recordings over tus, proves what it holds, and signs for it."""
