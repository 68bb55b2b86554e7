"""Operating a running server: status, reload, rollback and drain, on a port of their own that is off by default."""
