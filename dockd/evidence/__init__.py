"""What proves footage: keys, receipts, manifests, the custody log and the container check."""
