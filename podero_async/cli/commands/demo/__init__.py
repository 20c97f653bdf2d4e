"""The command `demo`: a simulated fleet, its backfill, and the check that no session is lost."""
