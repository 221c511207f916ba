"""Looking after a work folder: status, verify, repair, takedown."""
